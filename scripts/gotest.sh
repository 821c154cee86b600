#!/usr/bin/env bash
# go test -v -count=1 with less talk: one line a package, everything about
# failures, and every skip with its reason. With REQUIRE_PRIVILEGED=1 a skip is a
# failure unless allowed-skips.txt names the test. SKIPPED_IN names a file to write
# the skipped tests into: a line each of the package and the function.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

log=$(mktemp "${TMPDIR:-/tmp}/shunt-gotest.XXXXXX")
trap 'rm -f "$log"' EXIT

status=0
go test -v -count=1 "$@" >"$log" 2>&1 || status=1
if [ "$status" = 0 ]; then
	grep -aE '^ok\s' "$log"
else
	# Without the tests that passed and the talk of all.
	grep -avE '^\s*(=== (RUN|PAUSE|CONT|NAME)|--- PASS)|\[no test files\]$' "$log"
fi
if [ -n "${SKIPPED_IN:-}" ]; then
	# A package's tests come before the line with its result.
	awk '/^ *--- SKIP: / { split($3, path, "/"); skipped[path[1]] }
		/^(ok|FAIL)[ \t]+[^ \t]+[ \t]/ { for (test in skipped) print $2, test; delete skipped }' "$log" >"$SKIPPED_IN"
fi
[ "${REQUIRE_PRIVILEGED:-}" = 1 ] || exit "$status"

allowed=$(grep -vE '^(#|$)' "$here/allowed-skips.txt" | cut -d' ' -f1)
while read -r name; do
	if [ -n "$allowed" ] && grep -qxE -e "$allowed" <<<"$name"; then
		verdict="skipped, as allowed-skips.txt allows"
	else
		verdict="FAIL: skipped, and allowed-skips.txt does not allow it"
		status=1
	fi
	echo "$name: $verdict:"
	# The reason comes before the line in a test, after it in older formats.
	grep -aF -B2 -A1 -e "--- SKIP: $name (" "$log" | grep -avE '^\s*(===|---)'
done < <(sed -nE 's/^\s*--- SKIP: (\S+) .*/\1/p' "$log")
exit "$status"
