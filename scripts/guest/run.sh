#!/usr/bin/env bash
# Runs a static test binary in Debian 12's kernel 6.1 under QEMU, without KVM and
# without touching the host. Made for go test:
#
#	CGO_ENABLED=0 go test -exec "$PWD/scripts/guest/run.sh -m 1024" ./bpf
#
# The binary finds its package's testdata and the repository's testdata where
# they are on the host; bpffs, tracefs, /tmp and the loopback interface are
# there. Output streams; the exit status is the binary's, or 125 if the guest
# died or ran out of time.
set -euo pipefail

usage() {
	cat >&2 <<-'TEXT'
	usage: run.sh [flags] binary [argument...]
	  -m MB        memory of the guest (default 1024)
	  -t SECONDS   time limit (default 900)
	  -i           count instructions: 1 ns of guest time is 1 instruction, so that
	               bpf_ktime_get_ns, test_run's duration and time.Now count them
	  -k MODULES   further kernel modules, "nft_chain_nat nft_nat" (always: veth
	               bridge 8021q)
	  -I           with IPVS: its modules, and those that its tests need
	  -b PROGRAMS  programs of the host to take along with their libraries, "nft"
	  -e VARIABLES further environment variables to take along (always: SHUNT_*,
	               REQUIRE_PRIVILEGED, GODEBUG, GOTRACEBACK)
	TEXT
	exit 2
}

memory=1024 limit=900 modules="veth bridge 8021q" programs="" variables="" icount=()
while getopts m:t:iIk:b:e: flag; do
	case $flag in
	m) memory=$OPTARG ;;
	t) limit=$OPTARG ;;
	i) icount=(-icount "shift=0,sleep=off") ;;
	k) modules+=" $OPTARG" ;;
	I)
		modules+=" tun dummy sch_ingress cls_bpf cls_matchall act_skbedit ip_vs ip_vs_pe_sip"
		for scheduler in rr wrr lc wlc sed nq fo ovf sh dh mh lblc lblcr; do modules+=" ip_vs_$scheduler"; done
		modules+=" ipip ip6_tunnel ip_gre ip6_gre fou fou6" # what servers unwrap with
		;;
	b) programs=$OPTARG ;;
	e) variables=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
kernel=$("$here/kernel.sh")
version=$(ls "$kernel/lib/modules")

work=$(mktemp -d "${TMPDIR:-/tmp}/shunt-guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,etc,lib/modules,proc,root,run,sys,tmp,src}
chmod 1777 "$root/tmp"
cp /bin/busybox "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
install -m 755 "$1" "$root/test-binary"
shift

# Modules in the order of their dependencies. QEMU's plain CPU has no crc32
# instruction, and the kernel's own code does as well.
for module in $modules; do
	modprobe -d "$kernel" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !/crc32c-intel/ && !seen[$2]++ { print $2 }' >"$work/modules"
while read -r file; do
	cp "$file" "$root/lib/modules/"
	basename "$file"
done <"$work/modules" >"$root/lib/modules/order"

for program in $programs; do
	path=$(command -v "$program") || { echo "run.sh: no program $program" >&2; exit 1; }
	# ldd names each library by its path, the loader included; of a static one, none.
	{ ldd "$path" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
		install -D "$library" "$root$library"
	done
	install "$path" "$root/bin/"
done

directory=/src
case $PWD/ in
"$top"/*) directory=/src${PWD#"$top"} ;;
esac
mkdir -p "$root$directory"
[ ! -d testdata ] || cp -r testdata "$root$directory/"
[ ! -d "$top/testdata" ] || [ "$PWD" = "$top" ] || cp -r "$top/testdata" "$root/src/"

# Quoted for busybox's sh.
quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }
{
	for name in $(compgen -e); do
		case " $variables REQUIRE_PRIVILEGED GODEBUG GOTRACEBACK " in
		*" $name "*) ;;
		*) case $name in SHUNT_*) ;; *) continue ;; esac ;;
		esac
		echo "export $name=$(quote "${!name}")"
	done
	echo "cd $(quote "$directory")"
	printf 'exec /test-binary'
	for argument in "$@"; do printf ' %s' "$(quote "$argument")"; done
	echo
} >"$root/test-command"

(cd "$root" && find . | cpio --quiet -o -H newc >"$work/initrd")

# qemu64 and init_on_alloc=0 keep instruction counts independent of the size of
# what is copied or cleared (reference: QEMU counts each rep movsb step).
timeout --foreground -k 5 "$limit" qemu-system-x86_64 \
	-accel tcg -cpu qemu64 -m "$memory" -smp 1 "${icount[@]}" \
	-nodefaults -no-user-config -display none -no-reboot -serial stdio \
	-kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr init_on_alloc=0" \
	</dev/null |
	# The binary's last line may lack its end; the kernel has the last word.
	sed -u -e '/^\[ *[0-9.]*] reboot: Power down/d' -e "/shunt-guest-status [0-9]*$/{w $work/status" -e 's/shunt-guest-status [0-9]*$//; /^$/d}' || true

status=$(sed 's/.*shunt-guest-status //' "$work/status")
if [ -z "$status" ]; then
	echo "run.sh: the guest died, or ran longer than $limit s" >&2
	exit 125
fi
exit "$status"
