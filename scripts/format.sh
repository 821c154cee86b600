#!/usr/bin/env bash
# format.sh write: formats Go and C. format.sh check: names the files that are
# not formatted and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

gofumpt() { go tool -modfile=scripts/tools/go.mod gofumpt "$@"; }
# Committed and new files, without what is generated or not ours.
sources() { git ls-files --cached --others --exclude-standard -- "$@" | grep -vE '_bpfel\.go$|\.gen\.go$|^bpf/headers/' || true; }

mapfile -t go_files < <(sources '*.go')
mapfile -t c_files < <(sources '*.c' '*.h')
case ${1:-} in
write)
	gofumpt -w "${go_files[@]}"
	[ ${#c_files[@]} -eq 0 ] || clang-format-19 -i "${c_files[@]}"
	;;
check)
	status=0
	unformatted=$(gofumpt -l "${go_files[@]}")
	if [ -n "$unformatted" ]; then
		echo "not formatted as gofumpt does: $unformatted" >&2
		status=1
	fi
	if [ ${#c_files[@]} -gt 0 ]; then
		clang-format-19 --dry-run -Werror "${c_files[@]}" || status=1
	fi
	[ $status = 0 ] || echo "run make fmt" >&2
	exit $status
	;;
*)
	echo "usage: format.sh write|check" >&2
	exit 2
	;;
esac
