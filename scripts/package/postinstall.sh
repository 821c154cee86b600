#!/bin/sh
# Starts nothing: the interfaces are to be named first. A daemon that runs is
# replaced, which moves no connection.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemd-tmpfiles --create /usr/lib/tmpfiles.d/shunt.conf || true # no bpffs: the unit's condition says so
	systemctl try-restart shuntd.service
fi
