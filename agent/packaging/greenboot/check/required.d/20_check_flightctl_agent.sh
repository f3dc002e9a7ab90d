#!/bin/sh
# A boot is good when the agent is up and stays up. Installed below /usr/lib/greenboot.
# Whole seconds, which /etc/greenboot/greenboot.conf may set otherwise.
if [ -r /etc/greenboot/greenboot.conf ]; then
    . /etc/greenboot/greenboot.conf
fi
exec flightctl-agent health --verbose \
    --timeout "${FLIGHTCTL_HEALTH_CHECK_TIMEOUT:-150}s" \
    --stability-window "${FLIGHTCTL_HEALTH_STABILITY_WINDOW:-60}s" \
    --poll-interval "${FLIGHTCTL_HEALTH_POLL_INTERVAL:-5}s"
