#!/usr/bin/env bash
# Compiles the BPF programs and writes their Go types, in ./bpf, and writes the
# API's models, server interface and client from its document, in
# ./director/api. Any other go:generate line that is added there is picked up. A
# copy of the tree without the API, as check-generated.sh may make one, is left
# without.
set -euo pipefail
cd "$(dirname "$0")/.."
go generate ./bpf/...
if [ -d director/api ]; then
	go generate ./director/api
fi
