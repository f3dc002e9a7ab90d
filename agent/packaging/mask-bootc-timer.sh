#!/bin/sh
# bootc's own updates would go past the fleet. Installed as
# /usr/libexec/flightctl/mask-bootc-timer.sh, run before each start of the agent; may be repeated.
timer=bootc-fetch-apply-updates.timer
link="/etc/systemd/system/$timer"
if [ ! -e "/usr/lib/systemd/system/$timer" ] && [ ! -e "$link" ]; then
    exit 0
fi
if [ "$(readlink "$link")" = /dev/null ]; then
    exit 0
fi
{
    date
    ln -sfn /dev/null "$link" && systemctl daemon-reload && systemctl mask --now "$timer"
} >>/var/log/flightctl-mask-bootc-timer.log 2>&1
