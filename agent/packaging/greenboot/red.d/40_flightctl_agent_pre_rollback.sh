#!/bin/sh
# Before the boot loader goes back to the old system: what was wrong is said once more, so that it
# is in the journal of a boot that nobody will see again. Installed below /usr/lib/greenboot.
counter=$(grub2-editenv - list 2>/dev/null | sed -n 's/^boot_counter=//p')
if [ "${counter:-0}" -gt 0 ] 2>/dev/null; then
    exit 0
fi
echo "the agent did not become healthy; the old system will be booted"
systemctl status --no-pager --full flightctl-agent.service || true
flightctl-agent health --timeout 1s --stability-window 0s || true
journalctl --no-pager --boot --unit flightctl-agent.service --lines 50 || true
exit 0
