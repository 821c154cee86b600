#!/bin/sh
# Starts nothing: interfaces and addresses are to be named first. Decapsulation goes over
# to this version without a gap. An agent that is registered stays with the version that
# it has: a restart would drain its servers.
set -e
if ! getent passwd shunt-agent >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers /usr/lib/sysusers.d/shunt-agent.conf
	else
		useradd --system --user-group --home-dir / --no-create-home --shell /usr/sbin/nologin shunt-agent
	fi
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if systemctl --quiet is-active shunt-agent-decap.service; then
		systemctl reload shunt-agent-decap.service
	fi
fi
