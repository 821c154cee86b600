#!/usr/bin/env bash
# Static checks: go vet, staticcheck, shellcheck, and rules of the house that no
# tool knows.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
status=0

go vet ./... || status=1
go tool -modfile=scripts/tools/go.mod staticcheck ./... || status=1

tracked() { git ls-files --cached --others --exclude-standard -- "$@"; }
mapfile -t shell < <(tracked 'scripts/*.sh' 'scripts/**/*.sh' .ci/run | sort -u)
shellcheck "${shell[@]}" || status=1

# A word that could mean a server or a data plane (design.md §2), and notes of
# work left undone. Not this file, which names them, nor procfs's function.
mapfile -t ours < <(tracked '*.go' '*.c' '*.h' '*.sh' '*.md' Makefile | grep -vE '_bpfel\.go$|\.gen\.go$|^bpf/headers/|^scripts/lint\.sh$|(^|/)testdata/')
if grep -niE 'backend' "${ours[@]}" | grep -v 'IPVSBackendStatus'; then
	echo "lint.sh: say server or data plane" >&2
	status=1
fi
if grep -nE '\b(TODO|FIXME|XXX)\b' "${ours[@]}"; then
	echo "lint.sh: do it or open an issue" >&2
	status=1
fi
for file in "${ours[@]}"; do
	case $file in *.go | *.c | *.h) ;; *) continue ;; esac
	lines=$(wc -l <"$file")
	if [ "$lines" -gt 600 ]; then
		echo "lint.sh: $file has $lines lines: split it (600 at most)" >&2
		status=1
	fi
done
exit $status
