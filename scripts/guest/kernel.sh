#!/usr/bin/env bash
# Prints the folder that holds Debian 12's cloud kernel, unpacked: boot/vmlinuz-*
# and lib/modules/*. Downloads the package on first use, and after an update of
# Debian; nothing is installed. SHUNT_CACHE names another folder than
# /var/cache/shunt.
set -euo pipefail

cache=${SHUNT_CACHE:-/var/cache/shunt}/guest
mkdir -p "$cache"
exec 9>"$cache/lock" # two runs at once
flock 9

# The newest unpacked kernel serves for a day without asking apt again.
current=$cache/current
if [ -e "$current/complete" ] && [ -n "$(find "$current/complete" -mtime -1)" ]; then
	readlink -f "$current"
	exit
fi

# apt's own user may not write here.
fetch() { apt-get -q -o APT::Sandbox::User=root download "$package" >&2; }
resolve() {
	local meta=linux-image-cloud-amd64
	# The package that the meta package depends on is the kernel itself.
	apt-cache depends "$meta" 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }'
}
package=$(resolve)
if [ -z "$package" ]; then
	apt-get update -q >&2
	package=$(resolve)
fi
if [ -z "$package" ]; then
	echo "kernel.sh: apt knows no linux-image-cloud-amd64: the guest needs Debian 12's package sources" >&2
	exit 1
fi
version=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
folder=$cache/${package}_$version

if [ ! -e "$folder/complete" ]; then
	echo "kernel.sh: fetching $package $version" >&2
	work=$(mktemp -d "$cache/download.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	chmod 755 "$work"
	(
		cd "$work"
		# An old list of packages may name a version that is gone.
		fetch || { apt-get update -q >&2 && fetch; }
		dpkg -x "$package"_*.deb kernel
		depmod -b kernel "$(ls kernel/lib/modules)"
	)
	rm -rf "$folder"
	mv "$work/kernel" "$folder"
fi
touch "$folder/complete"
ln -sfn "$folder" "$current"
readlink -f "$current"
