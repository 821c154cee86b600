#!/usr/bin/env bash
# Compiles the BPF programs and writes their Go types, in ./bpf, and writes the
# API's models, server interface and client from its document, in
# ./director/api. Any other go:generate line that is added there is picked up.
set -euo pipefail
cd "$(dirname "$0")/.."
go generate ./bpf/... ./director/api
