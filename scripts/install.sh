#!/usr/bin/env bash
# Installs what make built under DESTDIR and PREFIX: binaries, unit, man pages,
# completions, examples; with IPVSADM=1 links that make shunt ipvsadm. A
# configuration that is there is left alone, and so is another ipvsadm. Starts
# nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${DESTDIR:-}${PREFIX:-/usr/local}
etc=${DESTDIR:-}/etc/shunt
put() { install -D -m "$1" "$2" "$3"; }

links=()
[ "${IPVSADM:-0}" = 0 ] || links=(ipvsadm ipvsadm-save ipvsadm-restore)
target=../bin/shunt
for name in "${links[@]}"; do # before anything is laid down
	link=$prefix/sbin/$name
	if { [ -e "$link" ] || [ -L "$link" ]; } && [ "$(readlink "$link")" != $target ]; then
		echo "install.sh: $link is there and not Shunt's: nothing was installed" >&2
		echo "hint: remove ipvsadm's package, or move its files aside, as with dpkg-divert --local --rename --add FILE" >&2
		exit 1
	fi
done

put 755 bin/shuntd "$prefix/sbin/shuntd"
put 755 bin/shunt "$prefix/bin/shunt"
put 755 bin/shunt-agent "$prefix/sbin/shunt-agent"
for name in "${links[@]}"; do
	ln -sfn $target "$prefix/sbin/$name"
done

scripts/docs.sh bin/docs
for page in bin/docs/man/*; do
	put 644 "$page" "$prefix/share/man/man1/${page##*/}"
done
cp cmd/shunt-agent/completion/* bin/docs/completion/
for name in shunt shunt-agent; do
	put 644 "bin/docs/completion/$name.bash" "$prefix/share/bash-completion/completions/$name"
	for folder in site-functions vendor-completions; do # Debian's zsh reads the latter in /usr
		put 644 "bin/docs/completion/$name.zsh" "$prefix/share/zsh/$folder/_$name"
	done
	put 644 "bin/docs/completion/$name.fish" "$prefix/share/fish/vendor_completions.d/$name.fish"
done
rm -rf bin/docs
put 644 scripts/package/shunt-ipvsadm.1 "$prefix/share/man/man1/shunt-ipvsadm.1"
put 644 scripts/package/shunt-agent.1 "$prefix/share/man/man1/shunt-agent.1"

put 644 LICENSE "$prefix/share/doc/shunt/copyright"
put 644 LICENSE "$prefix/share/doc/shunt-agent/copyright"
put 644 scripts/package/decap.env "$prefix/share/doc/shunt-agent/decap.env"
put 644 scripts/package/agent.yaml "$prefix/share/doc/shunt-agent/agent.yaml"
put 644 director/config/testdata/reference.yaml "$prefix/share/doc/shunt/reference.yaml"
put 644 director/config/testdata/reference-ipvs.yaml "$prefix/share/doc/shunt/reference-ipvs.yaml"
put 644 scripts/package/ipvs.modules-load.conf "$prefix/share/doc/shunt/ipvs.modules-load.conf"
sed "s|=/usr/bin/|=${PREFIX:-/usr/local}/bin/|" scripts/package/ldirectord.conf >"$prefix/share/doc/shunt/ldirectord.conf"
put 644 director/config/schema.json "$prefix/share/shunt/shunt.schema.json"
put 644 director/metrics/grafana.json "$prefix/share/shunt/grafana.json"
put 644 director/metrics/alerts.yaml "$prefix/share/shunt/alerts.yaml"

# systemd looks for these in /usr/lib and in /usr/local/lib.
lib=$prefix/lib
install -d "$lib/systemd/system"
for unit in shuntd shunt-agent shunt-agent-decap; do
	sed "s|^\(Exec[A-Za-z]*=+*\)/usr/sbin/|\1${PREFIX:-/usr/local}/sbin/|" "scripts/package/$unit.service" >"$lib/systemd/system/$unit.service"
done
put 644 scripts/package/tmpfiles.conf "$lib/tmpfiles.d/shunt.conf"
put 644 scripts/package/sysusers.conf "$lib/sysusers.d/shunt.conf"
put 644 scripts/package/sysusers-agent.conf "$lib/sysusers.d/shunt-agent.conf"
[ -e "$etc/shunt.yaml" ] || put 640 scripts/package/shunt.yaml "$etc/shunt.yaml"
