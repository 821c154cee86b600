#!/usr/bin/env bash
# Builds the Debian and RPM packages of VERSION from what make built, in DIST.
# GOARCH chooses the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: package.sh VERSION DIST}
dist=${2:?usage: package.sh VERSION DIST}
ARCH=${GOARCH:-$(go env GOARCH)}
# A package's version begins with a digit and has no dash.
VERSION=$(sed -e 's/^v//' -e 's/-/./g' -e 's/^[^0-9]/0.&/' <<<"$version")
export ARCH VERSION

mkdir -p "$dist"
scripts/docs.sh bin/docs
gzip -9fn bin/docs/man/*
for format in deb rpm; do
	go tool -modfile=scripts/package/tools/go.mod nfpm package \
		--config scripts/package/nfpm.yaml --packager "$format" --target "$dist/"
done
rm -rf bin/docs
