#!/bin/sh
# Lays the agent out below DESTDIR, as every package and image has it: the one place that says what
# is installed where. Needs nothing but a shell; changes nothing outside DESTDIR.
#
#   install.sh DESTDIR      (HOMEPORT_COMMIT: what `flightctl-agent version` says)
set -eu
[ $# -eq 1 ] || { echo "usage: install.sh DESTDIR" >&2; exit 2; }
dest=${1%/}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
source=$(dirname -- "$(dirname -- "$here")")
private=$dest/usr/lib/homeport-agent

# put MODE FROM TO
put() {
    mkdir -p "$(dirname -- "$3")"
    cp "$2" "$3"
    chmod "$1" "$3"
}

for module in "$source"/agent/*.py; do
    put 644 "$module" "$private/agent/${module##*/}"
done
# Of the vocabulary only what an agent imports; a test knows if that imports more.
for module in __init__ $(sed -n -e 's/^ *from resources import \([a-z_, ]*\).*/\1/p' \
    -e 's/^ *from resources\.\([a-z_]*\) import .*/\1/p' "$source"/agent/*.py |
    tr -d ' ' | tr ',' '\n' | sort -u); do
    put 644 "$source/resources/$module.py" "$private/resources/$module.py"
done
put 755 "$here/post-install.sh" "$private/post-install.sh"
put 755 "$here/pre-remove.sh" "$private/pre-remove.sh"

put 755 "$here/launcher" "$dest/usr/bin/flightctl-agent"
sed -i "s/@COMMIT@/${HOMEPORT_COMMIT:-unknown}/" "$dest/usr/bin/flightctl-agent"
ln -sf flightctl-agent "$dest/usr/bin/homeport-agent"

put 644 "$source/agent/flightctl-agent.service" "$dest/usr/lib/systemd/system/flightctl-agent.service"
put 644 "$here/tmpfiles.conf" "$dest/usr/lib/tmpfiles.d/homeport-agent.conf"
put 755 "$here/mask-bootc-timer.sh" "$dest/usr/libexec/flightctl/mask-bootc-timer.sh"
put 644 "$source/agent/hooks.d/afterupdating/00-default.yaml" \
    "$dest/usr/lib/flightctl/hooks.d/afterupdating/00-default.yaml"
for folder in hooks.d/beforeupdating hooks.d/beforerebooting hooks.d/afterrebooting custom-info.d; do
    mkdir -p "$dest/usr/lib/flightctl/$folder"
done
for script in check/required.d/20_check_flightctl_agent.sh \
    red.d/40_flightctl_agent_pre_rollback.sh; do
    put 755 "$here/greenboot/$script" "$dest/usr/lib/greenboot/$script"
done
mkdir -p "$dest/etc/flightctl/conf.d" "$dest/etc/flightctl/hooks.d"
chmod 755 "$dest/etc/flightctl"
