#!/bin/sh
# Before the files go: what would be left behind of them, and what was taken from the system is given
# back. Applications go on running, and the device keeps its identity.
set -eu
private=/usr/lib/homeport-agent
find "$private" -name __pycache__ -type d -prune -exec rm -rf {} +

[ "${1:-remove}" = remove ] || exit 0
[ ! -d /run/systemd/system ] || loginctl disable-linger flightctl 2>/dev/null || true
rm -f /var/lib/systemd/linger/flightctl
# The log is there exactly if it was the agent that switched bootc's own updates off.
link=/etc/systemd/system/bootc-fetch-apply-updates.timer
if [ -e /var/log/flightctl-mask-bootc-timer.log ] && [ "$(readlink "$link")" = /dev/null ]; then
    rm -f "$link"
    [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
fi
