#!/usr/bin/env bash
# Compiles the BPF programs and writes their Go types, in ./bpf. Any bpf2go line
# that is added there is picked up.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go generate ./bpf/...
