package madcrowtest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a faulty wire before a server: a TCP proxy on a loopback port of
// its own, made by [StartProxy]. Without a fault it passes everything on. Its
// methods may be called from any goroutine.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu        sync.Mutex
	links     map[*link]struct{}
	closed    bool
	delay     time.Duration
	bandwidth int // bytes a second, for each connection and direction; 0: any
	blackHole bool
	refuse    bool
	cutAfter  int64 // negative: never
}

// StartProxy starts a proxy before target, "host:port". It ends, with all its
// connections, when the test does.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("madcrowtest: %v", err)
	}
	p := &Proxy{target: target, listener: l, links: map[*link]struct{}{}, cutAfter: -1}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Addr returns the proxy's address, "127.0.0.1:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port returns the proxy's port.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Conns returns how many connections of clients are open.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// SetDelay holds each piece of a reply back for d, without changing how much
// can be under way: every round trip takes d longer. Zero, the default, ends
// it for what comes after.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// SetBandwidth lets at most n bytes a second pass, on each connection and in
// each direction. Zero, the default, ends it.
func (p *Proxy) SetBandwidth(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bandwidth = n
}

// BlackHole swallows, while it is on, everything in both directions, and new connections
// are accepted but never answered. When it goes off, the connections
// that lived through it are closed, since bytes are missing from them.
func (p *Proxy) BlackHole(on bool) {
	p.mu.Lock()
	was := p.blackHole
	p.blackHole = on
	p.mu.Unlock()
	if was && !on {
		p.each((*link).close)
	}
}

// CutAfter closes every connection when n more bytes of replies have passed
// through it: in the middle of a reply, where n is smaller than that. It also
// holds for new connections, whose handshake counts. A negative n, the
// default, ends it.
func (p *Proxy) CutAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAfter = n
	for l := range p.links {
		l.passed = 0
	}
}

// ResetAll ends all connections at once with a TCP reset (RST), on both sides.
func (p *Proxy) ResetAll() { p.each((*link).reset) }

// Refuse closes, while it is on, new connections as soon as they are accepted; those that
// are open stay.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

func (p *Proxy) each(do func(*link)) {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		do(l)
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.each((*link).close)
	p.wg.Wait()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &link{p: p, client: conn, gone: make(chan struct{})}
		if !p.admit(l) {
			_ = conn.Close()
		}
	}
}

// admit registers the connection and starts serving it, unless connections
// are refused now.
func (p *Proxy) admit(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refuse {
		return false
	}
	p.links[l] = struct{}{}
	p.wg.Add(1)
	go l.serve(p.blackHole)
	return true
}

// link is one connection of a client, with that to the target.
type link struct {
	p      *Proxy
	client net.Conn
	once   sync.Once
	gone   chan struct{} // closed when the link is

	// Guarded by p.mu.
	server net.Conn
	passed int64 // bytes of replies since CutAfter
}

// serve runs until the link is closed. Into a black hole no connection to the
// target is made.
func (l *link) serve(dark bool) {
	defer l.p.wg.Done()
	if dark {
		defer l.close()
		buf := make([]byte, 32<<10)
		for {
			if _, err := l.client.Read(buf); err != nil {
				return
			}
		}
	}
	server, err := net.DialTimeout("tcp", l.p.target, 5*time.Second)
	if err != nil {
		l.close()
		return
	}
	l.p.mu.Lock()
	l.server = server
	l.p.mu.Unlock()
	select {
	case <-l.gone: // closed while it was dialling
		_ = server.Close()
		return
	default:
	}
	replies := make(chan piece, 1024)
	l.p.wg.Add(2)
	go l.readReplies(server, replies)
	go l.writeReplies(replies)
	l.copyRequests(server)
}

func (l *link) copyRequests(server net.Conn) {
	defer l.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(buf)
		if n > 0 && !l.dark() {
			if !l.paced(server, buf[:n]) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// piece is a part of a reply, to be passed on at a certain time.
type piece struct {
	data []byte
	due  time.Time
}

func (l *link) readReplies(server net.Conn, replies chan<- piece) {
	defer l.p.wg.Done()
	defer close(replies)
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if n > 0 {
			l.p.mu.Lock()
			delay := l.p.delay
			l.p.mu.Unlock()
			select {
			case replies <- piece{append([]byte(nil), buf[:n]...), time.Now().Add(delay)}:
			case <-l.gone:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) writeReplies(replies <-chan piece) {
	defer l.p.wg.Done()
	defer l.close()
	for r := range replies {
		if !l.wait(time.Until(r.due)) {
			return
		}
		if l.dark() {
			continue
		}
		data, last := l.cut(r.data)
		if !l.paced(l.client, data) || last {
			return
		}
	}
}

// paced writes at the bandwidth of the moment. It returns false when the link
// is over.
func (l *link) paced(w net.Conn, data []byte) bool {
	const grain = 2 << 10
	for len(data) > 0 {
		l.p.mu.Lock()
		rate := l.p.bandwidth
		l.p.mu.Unlock()
		part := data
		if rate > 0 && len(part) > grain {
			part = part[:grain]
		}
		if _, err := w.Write(part); err != nil {
			return false
		}
		if rate > 0 && !l.wait(time.Duration(len(part))*time.Second/time.Duration(rate)) {
			return false
		}
		data = data[len(part):]
	}
	return true
}

// wait returns false when the link is closed meanwhile.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.gone:
		return false
	}
}

func (l *link) dark() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.p.blackHole
}

// cut returns the part of data that may pass, and whether the link then ends.
func (l *link) cut(data []byte) (part []byte, last bool) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.p.cutAfter < 0 {
		return data, false
	}
	left := l.p.cutAfter - l.passed
	if int64(len(data)) >= left {
		return data[:left], true
	}
	l.passed += int64(len(data))
	return data, false
}

func (l *link) close() { l.closeBoth(false) }

func (l *link) reset() { l.closeBoth(true) }

func (l *link) closeBoth(reset bool) {
	l.once.Do(func() {
		l.p.mu.Lock()
		delete(l.p.links, l)
		server := l.server
		close(l.gone)
		l.p.mu.Unlock()
		for _, conn := range []net.Conn{l.client, server} {
			if conn == nil {
				continue
			}
			if tcp, ok := conn.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	})
}
