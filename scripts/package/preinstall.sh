#!/bin/sh
# The user must be there before files of its group are laid down.
set -e
if ! getent passwd shunt >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		printf 'u shunt - "Shunt director" /var/lib/shunt\n' | systemd-sysusers -
	else
		useradd --system --user-group --home-dir /var/lib/shunt --no-create-home --shell /usr/sbin/nologin shunt
	fi
fi
