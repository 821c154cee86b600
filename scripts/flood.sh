#!/usr/bin/env bash
# Floods of ten times a table's size, and guards that go on and off, in network
# namespaces, with real clients throughout. Prints what was sent and who suffered;
# fails if a connection did. flood.sh N: of a table for N connections.
set -euo pipefail
cd "$(dirname "$0")/.."

export SHUNT_FLOOD=${1:-16384}
CGO_ENABLED=0 go test -count=1 -v -timeout 30m -run '^Test(Flood|Guard)$' ./cmd/shuntd/labtest |
	sed -u -n -e 's/^.*figure: //p' -e '/^ *--- /p' -e '/^FAIL/p' -e '/^ok/p' -e '/_test.go:/{/figure\|SHUNT_SEED/!p}'
