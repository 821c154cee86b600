#!/usr/bin/env bash
# Installs the Debian packages that make test needs. Does nothing, and asks no
# server, where all are there.
set -euo pipefail

packages=(
	clang-19 llvm-19 clang-format-19 linux-libc-dev # generate
	gcc libc6-dev                                   # go test -race
	shellcheck git procps                           # lint and check
	curl ethtool iproute2 nftables iptables bpftool # lab
	iperf3 tshark tcpdump traceroute iputils-ping   # lab: odd packets
	zsh fish man-db groff-base                      # completion and manual pages
	qemu-system-x86 cpio busybox-static kmod        # guest
	user-mode-linux                                 # differential
	nginx-light dnsmasq-base python3-aiosmtpd       # lab: servers that checks ask
	keepalived ldirectord                           # their samples, imported; ldirectord in the lab
	snmpd                                           # hosts without the agent, asked for their load
)

if ! command -v go >/dev/null; then
	echo "setup.sh: no go on PATH: install Go $(awk '$1 == "go" { print $2 }' "$(dirname "$0")/../go.mod") or later from https://go.dev/dl" >&2
	exit 1
fi

missing=()
for package in "${packages[@]}"; do
	# shellcheck disable=SC2016 # dpkg-query's own variable
	state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "setup.sh: missing packages, run as root: apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive # no questions
if [ ! -e /usr/sbin/policy-rc.d ]; then
	# No daemon starts by being installed: invoke-rc.d asks this script.
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
