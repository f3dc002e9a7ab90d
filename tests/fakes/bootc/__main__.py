"""A stand-in for the `bootc` command, over real ostree deployments. [simulated]

bootc is packaged for no system that these tests can install. This program takes the same arguments,
prints the same lines and documents, and ends with the same statuses, for the five commands that an
agent uses; what it does, it does to real deployments (`sysroot`), from real images (`storage`). It
was written from facts about bootc, and knows nothing of any agent.

Not imitated, and refused: other transports than containers-storage, and every other command.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import yaml

from tests.fakes.bootc import storage
from tests.fakes.bootc.errors import Failed
from tests.fakes.bootc.host import Deployment, Host, Image, document

if TYPE_CHECKING:
    from tests.fakes.bootc.sysroot import Sysroot

NOTICE = "[simulated] this bootc is a stand-in over real ostree deployments"
# Exists where the older generation's shapes shall be shown.
OLD_SHAPES = Path("/etc/bootc-standin/old-shapes")


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    print(NOTICE, file=sys.stderr, flush=True)
    try:
        if os.geteuid():
            raise Failed("This command must be executed as the root user")
        arguments.run(arguments)
    except Failed as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def status(arguments: argparse.Namespace) -> None:
    form = "json" if arguments.json else arguments.format
    shown = document(_sysroot().host(), is_modern=not OLD_SHAPES.exists())
    print(json.dumps(shown) if form == "json" else yaml.safe_dump(shown, sort_keys=False))


def switch(arguments: argparse.Namespace) -> None:
    sysroot, host = _booted()
    target = Image(arguments.target, arguments.transport)
    if target.is_same_source(host.wanted):
        print("Image specification is unchanged.")
        if arguments.apply and host.staged is not None:
            _reboot(sysroot)
        return
    _stage(sysroot, _fetched(target))
    print(f"Queued for next boot: {arguments.transport}:{arguments.target}")
    if arguments.apply:
        _reboot(sysroot)


def upgrade(arguments: argparse.Namespace) -> None:
    sysroot, host = _booted()
    if host.wanted is None:
        raise Failed("No image source specified")
    fetched = _fetched(host.wanted)
    if _digest(host.staged) == fetched.digest:
        print("Staged update present, not changed")
    elif _digest(host.booted) == fetched.digest:
        # There is nothing to apply, so --apply does not reboot.
        print("No update available.")
        return
    else:
        _stage(sysroot, fetched)
        print(f"Queued for next boot: {fetched.transport}:{fetched.reference}")
    if arguments.apply:
        _reboot(sysroot)


def rollback(arguments: argparse.Namespace) -> None:
    sysroot, host = _booted()
    if host.is_rollback_queued:
        print("notice: Reverting queued rollback state")
    is_other = sysroot.roll_back()
    print(f"Next boot: {'rollback' if is_other else 'current'} deployment")
    if arguments.apply:
        _reboot(sysroot)


def usr_overlay(_arguments: argparse.Namespace) -> None:
    _booted()
    done = subprocess.run(["ostree", "admin", "unlock"], capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr.strip())
    print(done.stdout, end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bootc", description=NOTICE)
    parser.add_argument("--version", action="version", version="bootc 1.16.0 [simulated]")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("status")
    one.add_argument("--json", action="store_true")
    one.add_argument("--format", choices=("json", "yaml"), default="yaml")
    one.add_argument("--format-version", type=int, choices=(0, 1), default=0)
    one.set_defaults(run=status)

    one = commands.add_parser("switch")
    one.add_argument("--transport", default="registry")
    one.add_argument("--retain", action="store_true")  # nothing is collected here, ever
    one.add_argument("--apply", action="store_true")
    one.add_argument("target")
    one.set_defaults(run=switch)

    for name, run in (("upgrade", upgrade), ("rollback", rollback)):
        one = commands.add_parser(name)
        one.add_argument("--apply", action="store_true")
        one.set_defaults(run=run)

    commands.add_parser("usr-overlay").set_defaults(run=usr_overlay)
    return parser


def _sysroot() -> Sysroot:
    # Late: what a person asks wrongly is answered where there is no libostree, too.
    from tests.fakes.bootc.sysroot import Sysroot

    return Sysroot()


def _booted() -> tuple[Sysroot, Host]:
    """The system's deployments, to be changed by us alone."""
    sysroot = _sysroot()
    if not sysroot.is_booted():
        raise Failed("System not booted via bootc")
    sysroot.lock()
    return sysroot, sysroot.host()


def _fetched(image: Image) -> Image:
    if image.transport != storage.TRANSPORT:
        raise Failed(f"[simulated] transport {image.transport} is not imitated")
    return storage.inspect(image.reference)


def _stage(sysroot: Sysroot, image: Image) -> None:
    sysroot.stage(storage.commit(image, sysroot.repo), image)


def _digest(slot: Deployment | None) -> str | None:
    return slot.image.digest if slot is not None and slot.image is not None else None


def _reboot(sysroot: Sysroot) -> NoReturn:
    """Ask for it, and wait to be killed by it, as bootc does.

    Without the lock: what is staged is finished during the shutdown, by a program that takes it.
    """
    sysroot.unlock()
    sys.stdout.flush()
    subprocess.run(["systemctl", "reboot"], check=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
