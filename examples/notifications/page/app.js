"use strict";

const channel = new URLSearchParams(location.search).get("channel") || "notifications";
const feed = document.getElementById("feed");
const state = document.getElementById("state");
const problem = document.getElementById("problem");
document.getElementById("channel").textContent = channel;
document.title = channel + " – Notifications";

const time = date => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// add shows a line. Text of others is text, never markup.
function add(text, date, kind) {
  const line = document.createElement("li");
  const when = document.createElement("time");
  when.dateTime = date.toISOString();
  when.textContent = time(date);
  const what = document.createElement("span");
  what.textContent = text;
  line.className = kind;
  line.append(when, what);
  feed.prepend(line);
  document.getElementById("empty").hidden = true;
}

let interrupted = null; // since when
let lost = false; // not all that came meanwhile is kept

function show(now) {
  if (now === "live" && interrupted) {
    const seconds = Math.max(1, Math.round((Date.now() - interrupted) / 1000));
    add(`Interrupted at ${time(interrupted)} for ${seconds} s. ${lost ? "" : "What came meanwhile is here."}`, new Date(), "pause");
    interrupted = null;
    lost = false;
  }
  if (now === "interrupted" && state.dataset.state === "live") {
    interrupted = new Date();
  }
  state.dataset.state = now;
  state.textContent = now;
}

// The browser comes back by itself after a lost connection, with the id of the
// last event. Where it was refused it does not: then we do, with the same id.
let last = "*-0-"; // before the oldest message that is kept

function listen() {
  const source = new EventSource(`/feed/${encodeURIComponent(channel)}?last-event-id=${encodeURIComponent(last)}`);
  const on = (name, act) => source.addEventListener(name, event => {
    last = event.lastEventId || last;
    act(event);
  });
  on("message", event => {
    const { message, sent } = JSON.parse(event.data);
    add(message, new Date(sent), "message");
  });
  on("subscribed", () => show("live"));
  on("interrupted", () => show("interrupted"));
  on("history-lost", () => {
    lost = true;
    add("Some messages are lost: they are not kept any more.", new Date(), "lost");
  });
  source.onerror = () => {
    show("interrupted");
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(listen, 2000);
    }
  };
}

document.getElementById("send").addEventListener("submit", async event => {
  event.preventDefault();
  const input = document.getElementById("message");
  problem.hidden = true;
  try {
    const answer = await fetch(`/notify/${encodeURIComponent(channel)}?message=${encodeURIComponent(input.value)}`, { method: "POST" });
    if (!answer.ok) {
      throw new Error((await answer.json()).message);
    }
    input.value = "";
  } catch (error) {
    problem.textContent = `It may not have been sent: ${error.message}`;
    problem.hidden = false;
  }
});

listen();
