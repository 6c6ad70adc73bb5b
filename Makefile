# dive-agent: `make` lists what there is. A Debian machine with root, Go, Terraform, Maven and Python is enough; the test
# bed installs the rest.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)
GO      ?= go
TESTBED  = bin/testbed
PKG     ?= ./...
KEEPS    = $(filter-out 0,$(KEEP))
# The seed of what is random in `make soak`; printed, so that a run can be repeated.
SEED    ?= $(shell date +%s)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/dive-agent, stripped, with its version
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/dive-agent ./cmd/dive-agent

.PHONY: bin/testbed
bin/testbed:
	@$(GO) build -o $@ ./testbed/cmd/testbed

.PHONY: testbed
testbed: bin/testbed ## engine, images and provider for tests and demo; seconds when they are there
	$(TESTBED) up

.PHONY: testbed-down
testbed-down: bin/testbed ## stop the engine that the test bed started
	$(TESTBED) down

.PHONY: bin/demo
bin/demo:
	@$(GO) build -o $@ ./testbed/demo

.PHONY: demo
demo: build bin/testbed bin/demo ## the whole story on this machine (KEEP=1 leaves it running)
	$(TESTBED) run $(if $(KEEPS),-keep) -- bin/demo -agent bin/dive-agent -pictures bin/pictures $(if $(KEEPS),-keep)

.PHONY: demo-clean
demo-clean: bin/demo ## remove what a demo left running
	bin/demo -clean

.PHONY: test
test: bin/testbed ## all tests on real engines, with the race detector (PKG=./mongo/... for a part)
	@command -v gcc >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev; } # for -race
	@$(GO) list $(PKG) >/dev/null
	$(TESTBED) run -- $(MAKE) --no-print-directory -k test-parts test-story

# SQLite is C that was made into Go, and has one lock of its own. The race detector watches who calls it, not what is within:
# that makes it take six times as long, in every agent under test.
test soak: export GOFLAGS := $(GOFLAGS) -gcflags=modernc.org/...=-d=checkptr=0 '-gcflags=modernc.org/sqlite/lib=-d=checkptr=0 -race=false'

.PHONY: test-parts
test-parts: # four at a time in each package: what a test does is mostly to wait for an engine
	@packages='$(filter-out %/testbed/story,$(shell $(GO) list $(PKG)))'; [ -z "$$packages" ] || $(GO) test -race -p 2 -parallel 4 -timeout 30m $$packages

.PHONY: test-story
test-story: # alone: three stacks with a Keycloak each start in it
	@packages='$(filter %/testbed/story,$(shell $(GO) list $(PKG)))'; [ -z "$$packages" ] || $(GO) test -race -timeout 30m $$packages

.PHONY: soak
soak: bin/testbed ## long tests, bounded (SEED=n repeats a run)
	@echo "seed $(SEED)"
	DIVE_SEED=$(SEED) $(TESTBED) run -- $(GO) test -race -tags soak -p 1 -timeout 120m -run 'Soak' -v $(PKG)
	DIVE_TOOL=opentofu $(TESTBED) run -- $(GO) test -race -timeout 60m ./reconcilers/keycloak

.PHONY: bench
bench: bin/testbed build ## the figures with their bars, into bench/latest.json (ONLY=poll for a part)
	$(TESTBED) run -- $(GO) run ./bench/cmd/bench $(if $(ONLY),-only '$(ONLY)')

.PHONY: lint
lint: ## formatting and linters
	.ci/lint

.PHONY: fmt
fmt: ## format all Go files
	.ci/lint fmt

.PHONY: clean
clean: ## remove what was built here; the test bed's cache stays (rm -r it when no engine runs)
	rm -rf bin bench/latest.json
