# `make` alone lists the targets. It requires Go 1.26, git, make, and a C compiler;
# `make deps` installs the rest.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The flags of the caller's environment are replaced, so that every machine runs
# the same commands. `build` sets version and commit with -ldflags, so Go's own
# stamping is off: it fails in a clone that another user owns.
export GOFLAGS := -buildvcs=false

VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# The linter is built from its Go module, which the checksum database verifies, once
# per linter and Go version. A linter built by an older Go rejects newer code.
GOLANGCI_VERSION := v2.15.0
GOLANGCI_DIR      = .cache/bin/golangci-lint-$(GOLANGCI_VERSION)-$(shell go env GOVERSION)
GOLANGCI          = $(GOLANGCI_DIR)/golangci-lint

GO_DIRS   := cmd deploy docs domain eventstore projections http
TESTFLAGS ?=
FUZZTIME  ?= 60s

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run the service for trying it out (embedded log and read model, dev tokens)
	go run ./cmd/chatsessions serve --dev

.PHONY: build
build: ## Build bin/chatsessions with its version and commit
	go build -trimpath -ldflags '-X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o bin/chatsessions ./cmd/chatsessions

# What the tests run and `go test` cannot bring: redis-server (a real one),
# strace (proves the order of fsync and answer), curl (sends the published lines),
# node and npm (run the example in JavaScript) and a C compiler (the race detector).
# Debian's redis-server package starts a service when it is installed and at every
# boot; the tests start servers of their own, so that is prevented.
.PHONY: deps
deps: ## Install what the tests need and is missing (Debian packages; sudo when not root)
	@missing=(); \
	command -v redis-server >/dev/null || missing+=(redis-server); \
	command -v strace >/dev/null || missing+=(strace); \
	command -v curl >/dev/null || missing+=(curl); \
	command -v node >/dev/null || missing+=(nodejs); \
	command -v npm >/dev/null || missing+=(npm); \
	echo '#include <stdlib.h>' | $$(go env CC) -E -x c - >/dev/null 2>&1 || missing+=(gcc libc6-dev); \
	if [ $${#missing[@]} -eq 0 ]; then \
	  echo "deps: redis-server, strace, curl, node, npm and a C compiler are here, nothing to install"; exit 0; \
	fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "deps: missing: $${missing[*]}; there is no apt-get here, please install them by hand" >&2; exit 1; \
	fi; \
	as_root=(); \
	if [ "$$(id -u)" -ne 0 ]; then as_root=(sudo); fi; \
	echo "deps: installing $${missing[*]} from the system's packages$${as_root:+ (with sudo)}"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	  echo "deps: $$policy is set for the time of the install, so that no package starts a service"; \
	  trap '"$${as_root[@]}" rm -f '$$policy EXIT; \
	  printf '#!/bin/sh\nexit 101\n' | "$${as_root[@]}" tee $$policy >/dev/null; \
	  "$${as_root[@]}" chmod 755 $$policy; \
	fi; \
	"$${as_root[@]}" apt-get update -q; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"; \
	if [[ " $${missing[*]} " == *" redis-server "* && -d /run/systemd/system ]]; then \
	  echo "deps: disabling the system's redis-server service, the tests start their own"; \
	  "$${as_root[@]}" systemctl disable redis-server; \
	fi

# These tests load the machine and have deadlines, so they run after the others, one by one.
TESTS_ALONE = ./cmd/systemtest/consistency ./cmd/systemtest/redisfaults

.PHONY: test
test: deps ## Run all tests with the race detector
	CGO_ENABLED=1 go test -race -timeout 40m $(TESTFLAGS) $$(go list ./... | grep -vxF "$$(go list $(TESTS_ALONE))")
	CGO_ENABLED=1 go test -race -timeout 40m -p 1 $(TESTFLAGS) $(TESTS_ALONE)

.PHONY: lint
lint: $(GOLANGCI) ## Check format, modules, vet and golangci-lint
	@echo 'gofmt -l $(GO_DIRS)'; \
	unformatted=$$(gofmt -l $(GO_DIRS)); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w on:" >&2; echo "$$unformatted" >&2; exit 1; fi
	go mod verify
	go mod tidy -diff
	go vet ./...
	$(GOLANGCI) config verify
	$(GOLANGCI) run

$(GOLANGCI):
	GOBIN=$(CURDIR)/$(GOLANGCI_DIR) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (60s), one after the other
	@found=0; \
	for package in $$(go list ./...); do \
	  list=$$(go test -list '^Fuzz' $$package); \
	  for target in $$(grep '^Fuzz' <<<"$$list" || true); do \
	    found=$$((found + 1)); \
	    echo "go test -run '^\$$' -fuzz '^$$target\$$' -fuzztime $(FUZZTIME) $$package"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done; \
	if [ $$found -eq 0 ]; then echo "fuzz: no fuzz target found" >&2; exit 1; fi; \
	echo "fuzz: $$found targets, no finding"

# gremlins copies everything below the module's root for each worker, so it gets a copy
# without .git and .cache. It runs only the tests of the package that it mutates.
GREMLINS_VERSION := v0.6.0
GREMLINS_DIR      = .cache/bin/gremlins-$(GREMLINS_VERSION)-$(shell go env GOVERSION)
GREMLINS          = $(GREMLINS_DIR)/gremlins

MUTATE      ?= domain http
MUTATE_TIME ?= 60m
MUTATEFLAGS ?=

# The go command that gremlins runs. Go's coverage has no blocks for the conditions of a
# switch and for constants, so gremlins would never try their mutants. This profile
# covers every line of each file.
define MUTATE_GO
#!/bin/sh
'$(shell command -v go)' "$$@" || exit
while [ $$# -gt 0 ]; do
  if [ "$$1" = -coverprofile ]; then
    blocks=$$(awk -F: 'NR > 1 && !seen[$$1]++ { print $$1 ":1.1,99999.1 1 1" }' "$$2")
    echo "$$blocks" >>"$$2"
  fi
  shift
done
endef
export MUTATE_GO

.PHONY: mutate
mutate: $(GREMLINS) ## Mutate MUTATE (domain http), MUTATE_TIME (60m) each; print what no test notices
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; mkdir "$$dir/bin" "$$dir/copy"; \
	echo "$$MUTATE_GO" >"$$dir/bin/go"; chmod +x "$$dir/bin/go"; \
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$$dir/copy"; \
	for package in $(MUTATE); do \
	  echo "gremlins unleash ./$$package"; all=0; killed=0; end='stopped early, '; \
	  while IFS= read -r line; do \
	    case $$line in \
	    *" KILLED "*) all=$$((all + 1)); killed=$$((killed + 1)) ;; \
	    *" LIVED "* | *" NOT COVERED "* | *" TIMED OUT "*) all=$$((all + 1)); printf '\r%s\n' "$$line" ;; \
	    "Mutation testing completed"*) end= ;; \
	    esac; \
	    printf '\r%d mutants, %d killed' $$all $$killed >&2; \
	  done < <(cd "$$dir/copy" && PATH="$$dir/bin:$$PATH" GOFLAGS="$$GOFLAGS -vet=off" \
	    timeout --signal INT --kill-after 1m $(MUTATE_TIME) \
	    $(CURDIR)/$(GREMLINS) unleash --timeout-coefficient 10 $(MUTATEFLAGS) "./$$package" 2>&1); \
	  printf '\r%s: %s%d of %d mutants killed (%d %%)\n' "$$package" "$$end" $$killed $$all $$((100 * killed / (all + !all))); \
	done

$(GREMLINS):
	GOBIN=$(CURDIR)/$(GREMLINS_DIR) go install github.com/go-gremlins/gremlins/cmd/gremlins@$(GREMLINS_VERSION)

POWERCUTS ?= 50

# The test mounts loop devices in namespaces of its own: whatever ends it, even a
# SIGKILL, ends the services that it runs and unmounts and detaches everything.
.PHONY: powercut
powercut: ## Cut the power under the service POWERCUTS times (50); needs root and loop devices
	@if [ "$$(id -u)" -ne 0 ]; then echo "powercut: needs root, for loop devices and mounts" >&2; exit 1; fi
	@$(MAKE) --no-print-directory deps
	@missing=(); \
	command -v mkfs.xfs >/dev/null || missing+=(xfsprogs); \
	command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs); \
	{ command -v losetup && command -v mount; } >/dev/null || missing+=(mount); \
	if [ $${#missing[@]} -ne 0 ]; then \
	  if ! command -v apt-get >/dev/null; then \
	    echo "powercut: missing: $${missing[*]}; there is no apt-get here, please install them by hand" >&2; exit 1; \
	  fi; \
	  echo "powercut: installing $${missing[*]} from the system's packages"; \
	  apt-get update -q; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"; \
	fi; \
	losetup --find >/dev/null || { echo "powercut: needs loop devices, and there is none" >&2; exit 1; }; \
	unshare --mount true || { echo "powercut: needs to mount file systems, which is not allowed here" >&2; exit 1; }
	POWERCUTS=$(POWERCUTS) unshare --mount --pid --fork --kill-child --mount-proc \
	  go test -tags powercut -run '^TestPowerCuts' -count 1 -v -timeout 60m ./cmd/systemtest/powercut

BENCHFLAGS ?=

.PHONY: bench
bench: ## Measure the service beside raw baselines (BENCHFLAGS, see: go run ./cmd/bench --help)
	go run ./cmd/bench $(BENCHFLAGS)

CHAOS_DURATION ?= 15m
CHAOSFLAGS     ?=

# The duration is that of the faults, on each of the two set-ups; starting, healing
# and checking come on top. Root, because it mounts a small tmpfs to fill.
.PHONY: chaos
chaos: deps ## Kill, pause, cut and starve both set-ups for CHAOS_DURATION (15m) each, and check every answer
	CGO_ENABLED=1 go test -race -count=1 -v -timeout 24h -run '^TestUnderChaos' ./cmd/systemtest/chaos -chaos.duration $(CHAOS_DURATION) $(CHAOSFLAGS)

ROT      ?= 1000
ROT_SEED ?= 1

.PHONY: rot
rot: ## Damage copies of a log ROT times (1000), and run every command and the service on each
	ROT=$(ROT) ROT_SEED=$(ROT_SEED) go test -count=1 -v -timeout 24h -run '^TestNoCorruptionIsSilent$$' ./cmd/systemtest/rot

.PHONY: clean
clean: ## Remove what was built (bin/, .cache/); data directories stay
	rm -rf bin .cache coverage.out
