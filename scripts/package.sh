#!/usr/bin/env bash
# Builds the Debian and RPM packages of VERSION in DIST from what make install
# lays down: shunt, and shunt-agent for real servers. GOARCH chooses the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: package.sh VERSION DIST}
dist=${2:?usage: package.sh VERSION DIST}
ARCH=${GOARCH:-$(go env GOARCH)}
# A package's version begins with a digit and has no dash.
VERSION=$(sed -e 's/^v//' -e 's/-/./g' -e 's/^[^0-9]/0.&/' <<<"$version")
STAGE=$(mktemp -d "${TMPDIR:-/tmp}/shunt-package.XXXXXX")
trap 'rm -rf "${STAGE%/director}"' EXIT
AGENT=$STAGE/agent
STAGE=$STAGE/director
export ARCH VERSION STAGE AGENT

# Without links: files of these names are of the ipvsadm package.
DESTDIR=$STAGE PREFIX=/usr IPVSADM=0 scripts/install.sh
gzip -9n "$STAGE"/usr/share/man/man1/*
(cd "$STAGE" && find usr -name '*shunt-agent*' -prune -print0) | while IFS= read -r -d '' path; do
	mkdir -p "$AGENT/${path%/*}"
	mv "$STAGE/$path" "$AGENT/$path"
done
mkdir -p "$dist"
for config in nfpm nfpm-agent; do
	for format in deb rpm; do
		go tool -modfile=scripts/package/tools/go.mod nfpm package \
			--config "scripts/package/$config.yaml" --packager "$format" --target "$dist/"
	done
done
