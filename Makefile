# Everything that is run here and in CI. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go

# Every module of the workspace; the root's ./... does not reach into them.
MODULES = $(shell $(GO) list -m -f '{{.Dir}}')

.PHONY: help test lint servers unit root others compile tidy build api release chaos matrix soak bench fuzz

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# The tests mostly wait: what only computes runs beside them, and gives way. The
# root's are first, as the others are compiled meanwhile. Test programs have no
# debugging information: linking them takes less.
test: servers ## all that must be green, in every module (needs gcc, for the race detector)
	@log=$$(mktemp); compiled=$$(mktemp -u); failed=0; \
	( nice -n 19 $(MAKE) --no-print-directory compile || true; touch $$compiled; \
	  nice -n 19 $(MAKE) --no-print-directory lint tidy build ) >$$log 2>&1 & beside=$$!; \
	$(MAKE) --no-print-directory root || failed=1; \
	until [ -e $$compiled ]; do sleep 0.2; done; \
	$(MAKE) --no-print-directory others || failed=1; \
	wait $$beside || failed=1; cat $$log; rm -f $$log $$compiled; exit $$failed

servers: ## install the servers that the tests need, where they are missing
	@./scripts/servers

lint: ## gofumpt, go vet, staticcheck, in every module
	@CGO_ENABLED=0 ./scripts/lint $(MODULES)

tidy: ## each go.mod stands alone and is tidy
	@for m in $(MODULES) tools; do (cd $$m && GOWORK=off $(GO) mod tidy -diff) || { echo "run 'GOWORK=off go mod tidy' in $$m"; exit 1; }; done

build: ## the binary builds without cgo
	@CGO_ENABLED=0 $(GO) build -o bin/madcrow ./cmd/madcrow

api: ## write the API snapshot (api/*.txt); says what is added and what breaks
	@$(GO) run ./internal/api

VERSION = v0.1.0

release: ## try a release as strangers get it, and leave nothing behind (docs/releasing.md)
	@./scripts/release -dry-run $(VERSION)

# Examples start real programs, which the race detector does not see. All that is
# built without it is built without cgo, so once.
PROGRAMS = $(filter %/examples %/bench,$(MODULES))
OTHERS = $(shell $(GO) list $(addsuffix /...,$(filter-out $(PROGRAMS),$(MODULES))) | grep -vx "$$($(GO) list .)")

unit: root others ## the tests of every module, with the race detector

# In two parts, each of which waits for most of its time.
root:
	@GO=$(GO) ./scripts/shards 2 .

others:
	@$(GO) test -race -vet=off -ldflags='-s -w' -timeout 9m $(OTHERS)
	@CGO_ENABLED=0 $(GO) test -vet=off -ldflags='-s -w' -timeout 9m $(addsuffix /...,$(PROGRAMS))

compile:
	@$(GO) build -race -o /dev/null $(OTHERS)

# The packages whose tests have a strict form, and those tests. RUN narrows it:
# make chaos RUN=Frozen.
CHAOS = $(shell grep -rlE 'testkit\.(Chaos|Slack|Length|Within)\b' --include=*_test.go . | xargs -n1 dirname | sort -u)
RUN = $(shell ./scripts/strict)

chaos: servers ## faults in full length, with strict bounds; takes minutes and wants the machine for itself
	@$(GO) test -tags chaos -p 1 -count=1 -timeout 60m -run '$(RUN)' -v $(CHAOS) | grep -vE 'level=(INFO|WARN)|^=== '

# PACKAGES narrows it: make matrix PACKAGES="./cache ./session".
PACKAGES = $(addsuffix /...,$(MODULES))

matrix: ## the suites on each server program of MADCROW_REDIS_SERVERS
	@GO=$(GO) ./scripts/matrix $(PACKAGES)

soak: servers ## long runs, and the pages in a real Chromium
	@./scripts/servers chromium
	@$(GO) test -tags soak -count=1 -timeout 60m $(addsuffix /...,$(MODULES))

fuzz: ## each fuzz test for 30 seconds
	@for f in $$(grep -lE '^func Fuzz' --include=*_test.go -r . | xargs -n1 dirname | sort -u); do \
	  for n in $$(grep -hoE '^func Fuzz[A-Za-z]+' $$f/*_test.go | cut -c6-); do (cd $$f && $(GO) test -run '^$$' -fuzz "^$$n\$$" -fuzztime 30s .); done; done

bench: servers ## Madcrow beside its peers
	@cd bench && $(GO) run .
