#!/usr/bin/env bash
# Writes the CLI's man pages and completions, which it makes itself, to a folder.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:?usage: docs.sh FOLDER}
cli=bin/shunt
if [ "${GOARCH:-}" ] && [ "$GOARCH" != "$(go env GOHOSTARCH)" ]; then
	# One that runs here.
	cli=bin/shunt-host
	GOARCH=$(go env GOHOSTARCH) CGO_ENABLED=0 go build -o "$cli" ./cmd/shunt
fi
rm -rf "$folder"
mkdir -p "$folder/man" "$folder/completion"
"$cli" man --dir "$folder/man"
for shell in bash zsh fish; do
	"$cli" completion "$shell" >"$folder/completion/shunt.$shell"
done
rm -f bin/shunt-host
