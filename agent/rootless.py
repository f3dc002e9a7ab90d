"""What the users for whom applications run have, and what rootless podman needs beside podman: the
doctor's look at them. Nothing in a home is looked at: that is its owner's (`accounts`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from agent import podman, specs, world
from agent.accounts import Accounts
from agent.findings import ERROR, OK, WARNING, Finding, Patient

CHECK = "users"
QUICK_S = 20.0
# As many as an image may have owners, and as distributions give to each user.
IDS_LEAST = 65_536
# Where distributions begin to give them out.
IDS_FROM = 100_000
# The first podman whose network for users is pasta's; before it was slirp4netns's.
PASTA_SINCE = 5


def users(patient: Patient) -> Iterator[Finding]:
    """One application of a user's is enough to need all of it; without any nothing is said."""
    apps = _applications(patient)
    if not apps:
        return
    where = patient.world
    accounts = Accounts(where)
    yield from _tools(where)
    for user, app in sorted(apps.items()):
        account = accounts.of(user)
        objection = accounts.objection(user, app)
        if objection is not None or account is None:
            words, _, hint = (objection.detail if objection else "").partition("; ")
            yield Finding(ERROR, CHECK, f"application {app}: {words}", hint)
            continue
        troubles = list(_ids(where, account))
        if not accounts.is_up(account):
            unit = f"user@{account.uid}.service"
            words = f"{user} lingers, but their systemd is not up"
            hint = f"systemctl start {unit}; systemctl status {unit}"
            troubles.append(Finding(WARNING, CHECK, words, hint))
        yield from troubles
        if not troubles:
            yield Finding(OK, CHECK, f"{user} lingers and has numbers for containers")


def _applications(patient: Patient) -> dict[str, str]:
    """User -> an application of theirs, of what runs and of what is to run."""
    found: dict[str, str] = {}
    for name in (specs.CURRENT, specs.DESIRED):
        try:
            document = json.loads(patient.world.read(f"{patient.data_dir}/{name}") or b"{}")
        except ValueError:
            # Told by the look at the data directory.
            continue
        if isinstance(document, dict):
            found |= {a.run_as: a.name for a in specs.parse(document).applications if a.run_as}
    return found


def _tools(where: world.World) -> Iterator[Finding]:
    missing = [name for name in ("newuidmap", "newgidmap") if not _has(where, name)]
    if missing:
        words = f"{' and '.join(missing)} not installed: containers of users cannot run"
        yield Finding(ERROR, CHECK, words, "install uidmap (Debian) or shadow-utils (Fedora)")
    has_pasta = _has(where, "pasta", "--version")
    has_slirp = _has(where, "slirp4netns", "--version")
    answer = where.run(podman.version_argv(), timeout_s=QUICK_S)
    is_pastas = not answer.ok or podman.major_version(answer.stdout) >= PASTA_SINCE
    if not has_pasta and not has_slirp:
        words = "neither pasta nor slirp4netns: containers of users have no network"
        hint = f"install {'passt' if is_pastas else 'slirp4netns'}"
        yield Finding(ERROR, CHECK, words, hint)
    elif is_pastas and not has_pasta:
        words = "pasta is not installed, which this podman uses for the network of users"
        hint = "install passt, or set default_rootless_network_cmd in containers.conf"
        yield Finding(WARNING, CHECK, words, hint)


def _has(where: world.World, *argv: str) -> bool:
    return where.run(argv, timeout_s=QUICK_S).status != world.NOT_STARTED


def _ids(where: world.World, account: world.Account) -> Iterator[Finding]:
    lacking = []
    for path, option in (("/etc/subuid", "subuids"), ("/etc/subgid", "subgids")):
        ranges = list(_ranges(where.read(path) or b""))
        own = sum(n for who, _, n in ranges if who in (account.name, str(account.uid)))
        if own < IDS_LEAST and not _is_elsewhere(where):
            lacking.append((path, option, own, _free(ranges)))
    if not lacking:
        return
    places = " and ".join(path for path, *_ in lacking)
    most = max(own for _, _, own, _ in lacking)
    has = "no numbers" if not most else f"fewer than {IDS_LEAST} numbers"
    options = (f"--add-{option} {free}-{free + IDS_LEAST - 1}" for _, option, _, free in lacking)
    words = f"{account.name} has {has} for containers in {places}: images with several owners fail"
    hint = f"usermod {' '.join(options)} {account.name}; as {account.name}: podman system migrate"
    yield Finding(ERROR, CHECK, words, hint)


def _ranges(raw: bytes) -> Iterator[tuple[str, int, int]]:
    """(user, first, how many)."""
    for line in raw.decode(errors="replace").splitlines():
        who, _, rest = line.strip().partition(":")
        first, _, number = rest.partition(":")
        if first.isdigit() and number.isdigit():
            yield who, int(first), int(number)


def _free(ranges: Iterable[tuple[str, int, int]]) -> int:
    """Above all that is given out: a range must be nobody else's."""
    return max((first + number for _, first, number in ranges), default=IDS_FROM)


def _is_elsewhere(where: world.World) -> bool:
    """A directory service gives the numbers out, and the files say nothing."""
    text = (where.read("/etc/nsswitch.conf") or b"").decode(errors="replace")
    lines = [line.split() for line in text.splitlines()]
    return any(words[:1] == ["subid:"] and words[1:] not in ([], ["files"]) for words in lines)
