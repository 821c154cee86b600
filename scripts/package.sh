#!/usr/bin/env bash
# Builds the Debian and RPM packages in bin/dist from what make built. GOARCH
# chooses the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: package.sh VERSION}
ARCH=${GOARCH:-$(go env GOARCH)}
# A package's version begins with a digit and has no dash.
VERSION=$(sed -e 's/^v//' -e 's/-/./g' -e 's/^[^0-9]/0.&/' <<<"$version")
export ARCH VERSION

# Documentation comes from the CLI itself, built for this machine.
rm -rf bin/dist
mkdir -p bin/dist/man bin/dist/completion
cli=bin/shunt
if [ "$ARCH" != "$(go env GOHOSTARCH)" ]; then
	cli=bin/dist/shunt-host
	GOARCH=$(go env GOHOSTARCH) CGO_ENABLED=0 go build -o "$cli" ./cmd/shunt
fi
"$cli" man --dir bin/dist/man
gzip -9n bin/dist/man/*
for shell in bash zsh fish; do
	"$cli" completion "$shell" >"bin/dist/completion/shunt.$shell"
done

for format in deb rpm; do
	go tool -modfile=scripts/package/tools/go.mod nfpm package \
		--config scripts/package/nfpm.yaml --packager "$format" --target bin/dist/
done
rm -rf bin/dist/man bin/dist/completion bin/dist/shunt-host
