"""`python -m apiserver ca`: the generations of a server's certificate authority.

Shows them, has a new one made, ends an old one. It only reads the directory and writes requests
into it: the server of that directory does the work and tells the other servers (`pki.rotation`), so
this may be run beside it; while none runs, the request waits for the next start.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from apiserver.pki import generations, rotation
from apiserver.pki.generations import AuthorityDamaged, Generation
from apiserver.pki.rotation import Asked
from resources import timestamps

WORD = "ca"
# A server looks every two seconds.
PATIENCE_S = 20.0
# Whoever calls for a rotation has a reason: 100 000 devices are 28 a second.
RENEW_WITHIN_S = 3600
LOOK_S = 0.2
HEAD = ("GENERATION", "SIGNS FROM", "TRUSTED UNTIL", "STATE", "ROOT KEY")


def main(arguments: Sequence[str]) -> int:
    given = _options().parse_args(arguments)
    pki: Path = given.data / "pki"
    if not (pki / "ca.crt").exists():
        print(f"error: there is no certificate authority in {given.data}", file=sys.stderr)
        return 1
    try:
        known = generations.load_or_create(pki, _now())
        refusal = _refusal(given, known)
        if refusal:
            print(f"error: {refusal}", file=sys.stderr)
            return 1
        if given.rotate:
            number = known[-1].number + 1
            wanted = Asked(number, given.overlap, given.renew_within, _person())
            generations.write(pki / rotation.WANTED, wanted.text().encode())
            _wait(lambda: generations.place(pki, number).exists())
        if given.end:
            ended = Asked(given.end, by=_person())
            generations.write(pki / rotation.ENDED, ended.text().encode())
            file = generations.place(pki, given.end) / generations.TRUSTED_UNTIL
            _wait(file.exists)
        show(generations.load_or_create(pki, _now()))
    except (AuthorityDamaged, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"apiserver {WORD}", description="The certificate authority of a server."
    )
    parser.add_argument("--data", type=Path, required=True, help="the server's directory")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rotate", action="store_true", help="have a new generation made")
    what.add_argument("--end", type=int, metavar="N", help="trust generation N no more, from now")
    parser.add_argument(
        "--overlap",
        type=float,
        default=rotation.OVERLAP_S,
        metavar="SECONDS",
        help="until the new generation signs; every server must look before (default: %(default)g)",
    )
    parser.add_argument(
        "--renew-within",
        type=int,
        default=RENEW_WITHIN_S,
        metavar="SECONDS",
        help="devices renew their certificates within this time (default: %(default)d)",
    )
    return parser


def _person() -> str:
    """Who runs this, for the audit: what the machine says, and who became root by sudo."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an image without a line for it
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER", "")
    return f"{name} ({before})" if before and before.isprintable() else name


def _refusal(given: argparse.Namespace, known: Sequence[Generation]) -> str:
    last = known[-1]
    if given.overlap < 0 or given.renew_within < 0:
        return "--overlap, --renew-within: seconds, 0 at least"
    if given.rotate and last.signs_from > _now():
        return f"generation {last.number} has not begun to sign; wait for that"
    signing = [each.number for each in known if each.signs_from <= _now()][-1]
    if given.end and given.end not in {each.number for each in known if each.number < signing}:
        return f"--end: only generations before the one that signs ({signing}) can be ended"
    return ""


def _wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > deadline:
            print("noted; the server of this directory will do it when it runs", file=sys.stderr)
            return
        time.sleep(LOOK_S)


def show(known: Sequence[Generation]) -> None:
    """A table of them."""
    now = _now()
    signing = [each.number for each in known if each.signs_from <= now][-1]
    rows = [HEAD]
    for each in known:
        state = "signs" if each.number == signing else "older"
        if each.ends_at <= now:
            state = "ended"
        elif each.number > signing:
            state = "to come"
        since, until = timestamps.of(each.signs_from), timestamps.of(each.ends_at)
        begins = "always" if each.signs_from == generations.ALWAYS else since
        rows.append((str(each.number), begins, until, state, each.root.key_id[:16]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        print("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)))


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
