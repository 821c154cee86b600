#!/usr/bin/env bash
# Fails if the committed BPF objects, their Go types and the API's code are not what the
# sources give.
# Works on a copy: the tree is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d "${TMPDIR:-/tmp}/shunt-generate.XXXXXX")
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/scripts"
cp -r bpf go.mod go.sum "$copy"
mkdir "$copy/director"
cp -r director/api "$copy/director"
cp -r scripts/tools scripts/generate.sh "$copy/scripts"

generated() { (cd "$1" && find bpf director/api -name '*_bpfel.go' -o -name '*_bpfel.o' -o -name '*.gen.go' | sort); }
if [ -z "$(generated .)" ]; then
	echo "check-generated.sh: there are no generated files" >&2
	exit 1
fi
(cd "$copy" && find bpf director/api \( -name '*_bpfel.go' -o -name '*_bpfel.o' -o -name '*.gen.go' \) -delete)
"$copy/scripts/generate.sh"

status=0
for file in $({ generated .; generated "$copy"; } | sort -u); do
	cmp -s "$file" "$copy/$file" && continue
	echo "check-generated.sh: $file is not what its sources give: run make generate and commit it" >&2
	case $file in *.go) diff -u "$file" "$copy/$file" | head -40 >&2 || true ;; esac
	status=1
done
exit $status
