#!/usr/bin/env bash
# Builds the Debian and RPM packages of VERSION in DIST from what make install
# lays down. GOARCH chooses the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: package.sh VERSION DIST}
dist=${2:?usage: package.sh VERSION DIST}
ARCH=${GOARCH:-$(go env GOARCH)}
# A package's version begins with a digit and has no dash.
VERSION=$(sed -e 's/^v//' -e 's/-/./g' -e 's/^[^0-9]/0.&/' <<<"$version")
STAGE=$(mktemp -d "${TMPDIR:-/tmp}/shunt-package.XXXXXX")
trap 'rm -rf "$STAGE"' EXIT
export ARCH VERSION STAGE

# Without links: files of these names are of the ipvsadm package.
DESTDIR=$STAGE PREFIX=/usr IPVSADM=0 scripts/install.sh
gzip -9n "$STAGE"/usr/share/man/man1/*
mkdir -p "$dist"
for format in deb rpm; do
	go tool -modfile=scripts/package/tools/go.mod nfpm package \
		--config scripts/package/nfpm.yaml --packager "$format" --target "$dist/"
done
