# make demo and make test need Go and, for the parts on real veth pairs, root. Each installs what else it needs, or says so.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 0

gvisor-rival = $(GO) build -C tests/gvisor -o ../../bin/gvisor-rival .

.PHONY: help build examples install demo test packetdrill bench bench-report bench-smoke bench-engine bench-engine-update gvisor generate check race fuzz lint ci clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

examples: ## the programs of the folder examples, into bin/
	@scripts/need git
	$(GO) build -C examples -o ../bin/ ./...

build: ## kitd into bin/
	@scripts/need git
	$(GO) build -o bin/kitd ./cmd/kitd

install: build ## kitd, its unit and an example configuration onto this machine
	install -D -m 0755 bin/kitd $(DESTDIR)/usr/local/sbin/kitd
	install -D -m 0644 cmd/kitd/kitd@.service $(DESTDIR)/etc/systemd/system/kitd@.service
	install -D -m 0644 cmd/kitd/kitd.toml $(DESTDIR)/etc/kit/kitd.toml.example

demo: build ## the main job, on a veth pair of its own, in under a minute
	@scripts/need ip ping arping
	@bin/kitd demo

test: ## all tests; those on veth pairs run as root only
	@scripts/need ip ping arping ethtool bpftool tcpdump kxdpgun iperf3 gcc nc socat curl wrk h2load nghttpd python3 dig dnsperf gtlsclient
	@[ "$$(id -u)" = 0 ] || echo "make test: not root, so the tests on veth pairs are skipped: run 'sudo -E make test' for all" >&2
	$(GO) test -timeout 20m -p 1 ./...
	$(GO) test -C examples -timeout 10m -p 1 ./...

packetdrill: ## packetdrill's scripts against kit's TCP: PACKETDRILL=its binary SCRIPTS=a folder of scripts
	@$(if $(and $(PACKETDRILL),$(SCRIPTS)),scripts/need ip sysctl ethtool python3 gcc,true)
	@$(GO) run ./tests/packetdrill -packetdrill '$(PACKETDRILL)' -scripts '$(SCRIPTS)'

# The benchmark with gVisor or, without it, with the reason. BENCH are more of kitd bench's options.
run-bench = if why=$$($(gvisor-rival) 2>&1); then gvisor=(--gvisor bin/gvisor-rival); \
	else echo "$$why" >&2; gvisor=(--no-gvisor "its build fails: $$why"); fi; \
	bin/kitd bench "$${gvisor[@]}" $(BENCH)

bench: build ## kit and its rivals, gVisor among them, on one veth pair
	@scripts/need ip kxdpgun gcc
	@$(run-bench)

bench-report: build ## the same, and its figures into docs/bench and the README; for a quiet machine
	@scripts/need ip kxdpgun gcc
	@mkdir -p docs/bench out
	@$(run-bench) -o json >out/report.json
	@cp out/report.json docs/bench/report.json
	$(GO) run ./internal/bench/publish

bench-smoke: build ## a short run of the benchmark
	@scripts/need ip kxdpgun gcc
	@bin/kitd bench --smoke

# The packages that have a table of cases, see internal/instructions.
engine = ./stack ./socketapi

bench-engine: ## the engine alone, on a wire in memory: nanoseconds and instructions a packet, for benchstat; COUNT=10 for its statistics
	$(GO) test -p 1 $(engine) -run '^$$' -bench '^BenchmarkEngine$$' -benchtime 0.2s -count $(or $(COUNT),1)

bench-engine-update: ## the instructions that tests hold the engine to, counted anew
	$(GO) test -p 1 $(engine) -count 1 -run '^TestInstructions$$' -update-instructions

gvisor: ## bin/gvisor-rival, gVisor in the benchmark; a module of its own, whose first build needs the network
	$(gvisor-rival)

generate: ## the BPF objects, from bpf/*.c and examples/whoami/*.c
	@scripts/need clang-14 llvm-strip-14 bpf-headers
	$(GO) generate ./bpf
	$(GO) generate -C examples ./whoami

check: ## that the committed BPF objects are what their sources give
	@scripts/need clang-14 llvm-strip-14 bpf-headers
	bpf/check-generated.sh
	bpf/check-generated.sh examples/whoami

lint: ## go vet, gofmt and staticcheck
	$(GO) vet ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these" >&2; exit 1; }
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO) vet -C examples ./...
	$(GO) run -C examples honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

race: ## the race detector on what has no AF_XDP in it
	@scripts/need iperf3 gcc
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./stack/... ./socketapi/... ./cmd/kitd/internal/...

fuzz: ## each fuzzer for FUZZTIME, such as 1m
	scripts/fuzz $(or $(FUZZTIME),20000x)

ci: ## what a change has to pass
	.ci/run

clean: ## what the targets above made
	rm -rf bin out
