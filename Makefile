# Each target is a line or two; the logic is in scripts/. make help lists them.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD   := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
PREFIX  ?= /usr/local
DIST    ?= dist

.DEFAULT_GOAL := build
.PHONY: help build generate fmt lint test check demo flood bench bench-quick stress install package clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

build: ## build static bin/shuntd, bin/shunt and bin/shunt-agent; needs only Go (GOARCH=arm64 builds for arm64)
	$(BUILD) -o bin/ ./cmd/shuntd ./cmd/shunt ./cmd/shunt-agent

generate: ## compile the BPF programs and write their Go types; needs clang-19
	scripts/generate.sh

fmt: ## format Go and C
	scripts/format.sh write

lint: ## go vet, staticcheck, shellcheck and the form of the files
	scripts/lint.sh

test: ## everything CI runs, on a fresh Debian 12 as root; installs what it needs
	scripts/check.sh

check: test ## the same: there is one gate

demo: build ## show Shunt at work in network namespaces; needs root
	go run ./scripts/demo

flood: ## floods of ten times a table for 16384 connections, and guards, with figures; needs root
	scripts/flood.sh

bench: ## all benchmarks; writes bench.json; needs root
	go run ./scripts/bench

bench-quick: ## the program-level benchmarks in three minutes; writes bench.json; needs root
	go run ./scripts/bench -quick

stress: ## a minute of both CPUs in the same small tables, and the tables against their model with a new seed; needs root
	SHUNT_STRESS=1m go test -count=1 -timeout 10m -v -run 'TestStress$$|TestTablesFollowTheModel' ./director/xdp

install: build ## install under PREFIX (/usr/local) and DESTDIR: binaries, unit, man pages, completions; IPVSADM=1: links, so that ipvsadm is shunt
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) IPVSADM=$(IPVSADM) scripts/install.sh

package: build ## Debian and RPM packages, shunt's and shunt-agent's, in DIST (dist)
	scripts/package.sh $(VERSION) $(DIST)

clean: ## remove what the other targets built
	rm -rf bin dist bench.json
