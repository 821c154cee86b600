#!/bin/busybox sh
# shellcheck shell=dash
# The guest's first process: sets the machine up, runs the test, says how it
# ended and switches off. See run.sh.
export PATH=/bin HOME=/root TMPDIR=/tmp
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t bpf none /sys/fs/bpf
mount -t tracefs none /sys/kernel/tracing
stty -onlcr </dev/console
while read -r module; do
	insmod "/lib/modules/$module" || echo "init: module $module is missing"
done </lib/modules/order
ip link set lo up
sh /test-command </dev/null
echo "shunt-guest-status $?"
poweroff -f
