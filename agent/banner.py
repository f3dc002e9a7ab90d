"""The banner on the console of a device: where to approve it, and later where to find it.

Text, and a QR code where the `qrcode` package is there; that is looked for in a short-lived child,
since a picture that is drawn twice in a life is not worth the memory.
"""

from __future__ import annotations

import logging
import os
import posixpath
import sys
from pathlib import Path
from urllib.parse import quote

from agent import world

log = logging.getLogger("agent.banner")

PATH = "/etc/issue.d/flightctl-banner.issue"
DISABLED = "FLIGHTCTL_DISABLE_CONSOLE_BANNER"
CHILD_TIMEOUT_S = 20.0


def write(where: world.World, ui: str, name: str, *, is_enrolled: bool) -> str:
    """Puts the banner where getty shows it, and returns it. A failure is only logged."""
    url = f"{ui}/{'manage' if is_enrolled else 'enroll'}/{quote(name, safe='')}"
    lead = "This device is managed at" if is_enrolled else "Approve this device at"
    text = f"\n{lead}\n{url}\n\n{picture(where, url)}"
    try:
        where.mkdir(posixpath.dirname(PATH))
        uid, gid = where.uid_of("root"), where.gid_of("root")
        where.write(PATH, text.encode(), mode=0o644, uid=uid or 0, gid=gid or 0)
    except OSError as error:
        log.warning("banner not written: %s", error)
    return text


def picture(where: world.World, url: str) -> str:
    """The QR code in half blocks; empty where it cannot be drawn."""
    root = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    done = where.run(
        [sys.executable, "-P", "-m", "agent.banner", url],
        timeout_s=CHILD_TIMEOUT_S,
        env={"PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root},
    )
    return done.stdout if done.ok else ""


def main(argv: list[str]) -> int:
    try:
        import qrcode
    except ImportError:
        return 1
    code = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_H, border=2)
    code.add_data(argv[0])
    # Consoles write light on dark: what is light in the code is what is drawn.
    code.print_ascii(out=sys.stdout, invert=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
