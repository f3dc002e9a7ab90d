#!/bin/sh
# After the files are there: what a package manager and the build of an image both do. Works without
# a running systemd, and may be repeated.
set -eu
private=/usr/lib/homeport-agent

# By content, not by time: the file systems of images say that everything was made in 1970. Without
# compiled modules the agent starts more slowly, and that is all.
python3 -m compileall -q --invalidation-mode checked-hash "$private/agent" "$private/resources" || true

# Whose applications run without root's rights, also while nobody is logged in. Its home is made by
# systemd-tmpfiles, here and at every boot.
if ! getent passwd flightctl >/dev/null; then
    useradd --no-create-home --user-group --shell /usr/sbin/nologin \
        --comment "Homeport applications" flightctl || true
fi
systemd-tmpfiles --create homeport-agent.conf || true
if [ -d /run/systemd/system ]; then
    loginctl enable-linger flightctl 2>/dev/null || true
fi
