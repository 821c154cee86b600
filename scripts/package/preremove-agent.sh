#!/bin/sh
# An upgrade keeps what runs; a removal ends it.
set -e
case $1 in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now shunt-agent-decap.service
	fi
	;;
esac
