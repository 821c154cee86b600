#!/usr/bin/env bash
# Runs a static test binary in Debian 12's user-mode-linux: the kernel 6.1 with
# IPVS, as a process of this machine. Made for go test:
#
#	CGO_ENABLED=0 SHUNT_GUEST=uml go test -exec "$PWD/scripts/guest/uml.sh" ./director/directortest/ipvs
#
# The guest sees the host's files, read-only; /run is its own, and there TMPDIR.
# What the test is to leave behind it writes into the folder SHUNT_OUT, with -o a
# folder of the host. Output streams; the exit status is the binary's, or 125 if
# the guest died or ran out of time.
set -euo pipefail

usage() {
	cat >&2 <<-'TEXT'
	usage: uml.sh [flags] binary [argument...]
	  -m MB        memory of the guest (default 512)
	  -t SECONDS   time limit (default 600)
	  -o FOLDER    of the host, writable for the guest; SHUNT_OUT names it there
	  -e VARIABLES further environment variables to take along (always: SHUNT_*,
	               REQUIRE_PRIVILEGED, GODEBUG, GOTRACEBACK)
	TEXT
	exit 2
}

memory=512 limit=600 out="" variables=""
while getopts m:t:o:e: flag; do
	case $flag in
	m) memory=$OPTARG ;;
	t) limit=$OPTARG ;;
	o) out=$OPTARG ;;
	e) variables=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage

if ! command -v linux.uml >/dev/null; then
	echo "uml.sh: no linux.uml: apt-get install user-mode-linux, or run scripts/setup.sh" >&2
	exit 125
fi
for folder in /usr/lib/uml/modules/6.1.*; do version=${folder##*/}; done
[ -d "/usr/lib/uml/modules/$version" ] || { echo "uml.sh: no modules in /usr/lib/uml/modules" >&2; exit 125; }

work=$(mktemp -d "${TMPDIR:-/tmp}/shunt-uml.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/result"
out=$(realpath -e "${out:-$work/result}")

# The kernel does not find UML's modules by itself, so all are loaded at once:
# a fork costs 25 ms here.
modules="tun veth bridge dummy sch_ingress cls_matchall act_skbedit ip_vs ip_vs_pe_sip"
for scheduler in rr wrr lc wlc sed nq fo ovf sh dh mh lblc lblcr; do modules+=" ip_vs_$scheduler"; done
modules+=" ipip ip6_tunnel ip_gre ip6_gre fou fou6" # what servers unwrap with

cat >"$work/init" <<-INIT
	#!/bin/sh
	export PATH=/usr/sbin:/usr/bin:/sbin:/bin
	mount -t proc none /proc
	mount -t sysfs none /sys
	mount -t tmpfs none /run
	mkdir -p /run/tmp /run/out /run/result /run/modules/lib
	ln -s /usr/lib/uml/modules /run/modules/lib/modules
	mount -t hostfs none /run/out -o '$out'
	mount -t hostfs none /run/result -o '$work/result'
	modprobe -d /run/modules -a $modules || echo "init: a module is missing"
	ip link set lo up
	sh '$work/run' </dev/null
	echo \$? >/run/result/status
	busybox poweroff -f
INIT

quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }
{
	for name in $(compgen -e); do
		case " $variables REQUIRE_PRIVILEGED GODEBUG GOTRACEBACK " in
		*" $name "*) ;;
		*) case $name in SHUNT_*) ;; *) continue ;; esac ;;
		esac
		echo "export $name=$(quote "${!name}")"
	done
	echo "export HOME=/run TMPDIR=/run/tmp SHUNT_OUT=/run/out"
	echo "cd $(quote "$PWD")"
	printf 'exec'
	for argument in "$@"; do printf ' %s' "$(quote "$argument")"; done
	echo
} >"$work/run"
chmod 755 "$work/init"

# A guest that hangs as a whole, without a word, was seen once in some hundred runs, beside
# other load. It is started once more, which is said: a test that hangs does so again.
boot() {
	timeout --foreground -k 5 "$limit" linux.uml mem="${memory}M" \
		rootfstype=hostfs ro init="$work/init" con=null con0=fd:0,fd:1 quiet loglevel=1 selinux=0 \
		</dev/null 2>"$work/noise" |
		# What user-mode-linux says about the host before it boots, and its consoles' line ends.
		sed -u -e 's/\r$//' -e '/^Core dump limits\|^[\t ]*\(soft\|hard\) - \|^Checking \|^reboot: \|^Adding [0-9]* bytes/d' || true
	[ -s "$work/result/status" ]
}

if ! boot; then
	echo "uml.sh: the guest died, or ran longer than $limit s: once more" >&2
	boot || true
fi
if [ ! -s "$work/result/status" ]; then
	cat "$work/noise" >&2
	echo "uml.sh: the guest died, or ran longer than $limit s" >&2
	exit 125
fi
exit "$(cat "$work/result/status")"
