#!/bin/sh
# An upgrade keeps the daemon; a removal ends it. Traffic flows on until
# `shunt detach` or a restart of the host.
set -e
case $1 in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now shuntd.service
	fi
	;;
esac
