#!/usr/bin/env bash
# Checks the subjects of commits: "package: verb object", the verb in lower case,
# at most 75 characters, as the kernel has it (submitting-patches). Takes a range; by default what the upstream lacks, or
# all where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

range=${1:-}
if [ -z "$range" ]; then
	range=HEAD
	! git rev-parse -q --verify '@{upstream}' >/dev/null 2>&1 || range='@{upstream}..HEAD'
fi
status=0
while read -r hash subject; do
	[ -n "$hash" ] || continue
	if [ ${#subject} -gt 75 ]; then
		echo "check-commits.sh: $hash: subject has ${#subject} characters, 75 at most: $subject" >&2
		status=1
	fi
	if ! [[ $subject =~ ^[a-zA-Z0-9./_-]+(, [a-zA-Z0-9./_-]+)*:\ [a-z] ]]; then
		echo "check-commits.sh: $hash: want \"package: verb object\": $subject" >&2
		status=1
	fi
done < <(git log --no-merges --format='%h %s' "$range")
exit $status
