#!/usr/bin/env bash
# Holds the fast path's instruction counts to bpf/testdata/instructions.json,
# +5 %, as the last step of the gate does. They are counted by the clock of the
# guest kernel, which is the same on every machine. "update" moves the baseline
# instead: commit that by itself and say what the instructions are for.
set -euo pipefail
cd "$(dirname "$0")/.."

export SHUNT_GUEST=icount CGO_ENABLED=0
baseline=bpf/testdata/instructions.json
count() { go test -count=1 -v -run TestInstructions -exec "$PWD/scripts/guest/run.sh -i" ./bpf; }

case ${1:-} in
"")
	if ! command -v qemu-system-x86_64 >/dev/null; then
		echo "bench-gate.sh: SKIPPED: there is no qemu-system-x86_64, so instructions were not counted" >&2
		exit
	fi
	count
	;;
update)
	log=$(mktemp "${TMPDIR:-/tmp}/shunt-gate.XXXXXX")
	trap 'rm -f "$log"' EXIT
	SHUNT_BASELINE=print count | tee "$log"
	mkdir -p "$(dirname "$baseline")"
	# One row a line, sorted, so that a change is read in the diff.
	sed -n 's/^baseline //p' "$log" | tr -d '\r' | sed -e 's/^{/{\n\t/' -e 's/,"/,\n\t"/g' -e 's/":/": /g' -e 's/}$/\n}/' >"$baseline"
	;;
*)
	echo "usage: bench-gate.sh [update]" >&2
	exit 2
	;;
esac
