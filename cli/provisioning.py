"""An agent's configuration in the forms that provisioning systems take. Pure.

As `config` it is one file with everything inside, for whoever builds images: there the certificate
is a shared one, and must be there again when the device is set back. The other forms are for one
device: certificate and key are files of their own, which the agent removes once it is enrolled.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cli import goyaml

Json = dict[str, Any]

CONFIG = "/etc/flightctl/config.yaml"
CERTIFICATE = "/var/lib/flightctl/certs/client-enrollment.crt"
KEY = "/var/lib/flightctl/certs/client-enrollment.key"
UNIT = "flightctl-agent.service"
# All three belong to root and to nobody else: the configuration says whom to trust.
MODE = 0o600
_END = "END_OF_FILE"


@dataclass(frozen=True, slots=True)
class File:
    path: str
    text: str


def config(settings: Json) -> str:
    """The agent's configuration, everything inline."""
    return goyaml.dump(settings)


def cloud_init(settings: Json) -> str:
    """User data for cloud-init. The agent is started behind its back: it may be ordered after
    cloud-init's own end, and waiting for it here would then never end."""
    files = [
        {
            "path": file.path,
            "permissions": f"{MODE:04o}",
            "owner": "root:root",
            "content": file.text,
        }
        for file in _files(settings)
    ]
    commands = [
        ["systemctl", "enable", UNIT],
        ["systemctl", "restart", "--no-block", UNIT],
    ]
    document = {"write_files": files, "runcmd": commands}
    return "#cloud-config\n" + goyaml.dump(document)


def ignition(settings: Json) -> str:
    """An Ignition configuration, version 3.4.0."""
    files = [
        {
            "path": file.path,
            "mode": MODE,
            "overwrite": True,
            "contents": {"source": f"data:,{quote(file.text, safe='')}"},
        }
        for file in _files(settings)
    ]
    document = {
        "ignition": {"version": "3.4.0"},
        "storage": {"files": files},
        "systemd": {"units": [{"name": UNIT, "enabled": True}]},
    }
    return json.dumps(document, indent=2) + "\n"


def kickstart(settings: Json) -> str:
    """A section for a Kickstart file, to be included or appended."""
    lines = ["%post --erroronfail", "umask 077"]
    for file in _files(settings):
        folder = file.path.rpartition("/")[0]
        # With an umask of its own: others may look into the folders, as the agent's packages do.
        lines.append(f"(umask 022; mkdir -p {folder})")
        lines.append(f"cat >{file.path} <<'{_END}'\n{file.text.rstrip()}\n{_END}")
    lines.append("if command -v restorecon >/dev/null; then")
    lines.append("  restorecon -R /etc/flightctl /var/lib/flightctl")
    lines += ["fi", f"systemctl enable {UNIT}", "%end"]
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[Json], str]] = {
    "config": config,
    "cloud-init": cloud_init,
    "ignition": ignition,
    "kickstart": kickstart,
}


def _files(settings: Json) -> tuple[File, ...]:
    """Configuration, certificate and key, each in its own file."""
    service = settings["enrollment-service"]
    shown = service["authentication"]
    outside = {
        "client-certificate": CERTIFICATE,
        "client-key": KEY,
        "remove-after-enrollment": True,
    }
    document = settings | {"enrollment-service": service | {"authentication": outside}}
    return (
        File(CERTIFICATE, _decoded(shown["client-certificate-data"])),
        File(KEY, _decoded(shown["client-key-data"])),
        # Last: an agent that is looking for it finds the others there.
        File(CONFIG, config(document)),
    )


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()
