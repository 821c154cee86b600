#!/bin/sh
# An upgrade keeps what runs; a removal ends it: servers are drained and taken away, and
# what was prepared is taken back, which nothing else could do later.
set -e
case $1 in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now shunt-agent.service shunt-agent-decap.service
	fi
	/usr/sbin/shunt-agent undo || true # what is left is named
	;;
esac
