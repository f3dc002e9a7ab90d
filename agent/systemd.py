"""systemctl: argument vectors to give it, and its output read. Nothing is run here.

Which units there are is asked of systemd at the moment; what a unit did since the machine was
booted is in systemd's own memory, and so needs none of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from resources.records import dataclass

RUNNING_MARK = "/run/systemd/system"
GENERATORS = (
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/lib/systemd/system-generators/podman-system-generator",
    "/usr/local/lib/systemd/system-generators/podman-system-generator",
)
# What units that came up with the network wait for; those of a user wait, and cannot ask for it.
NETWORK_TARGET = "network-online.target"
PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
    "NRestarts",
    "MainPID",
)
# Says on stderr what it cannot make services of.
QUADLET_CHECK = ("/usr/libexec/podman/quadlet", "-dryrun")
JOURNAL_LINES = 20
LOG_LINES = 3
# What podman and its monitor print beside the workload: identifiers, warnings of their own.
_NOISE = re.compile(r"\s*[0-9a-f]{12,64}\s*|conmon [0-9a-f]{12,64} <.*|time=\".*")


@dataclass(frozen=True, slots=True)
class Unit:
    """`has_run`: it was started since the machine was; then `result` and `status` mean something.

    `restarts` are those that systemd made by itself; `pid` 0 = it has no process of its own.
    """

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    status: int = 0
    has_run: bool = False
    restarts: int = 0
    pid: int = 0

    @property
    def is_up(self) -> bool:
        return self.active in ("active", "reloading", "refreshing")

    @property
    def is_coming(self) -> bool:
        return self.active == "activating"

    @property
    def is_complete(self) -> bool:
        """It ended by itself, in this boot, and systemd calls it a success."""
        return (
            self.active == "inactive"
            and self.has_run
            and self.result == "success"
            and self.status == 0
        )


def start_argv(units: Iterable[str]) -> list[str]:
    return ["systemctl", "start", *units]


def stop_argv(units: Iterable[str]) -> list[str]:
    return ["systemctl", "stop", *units]


def restart_argv(units: Iterable[str]) -> list[str]:
    return ["systemctl", "restart", *units]


def reset_failed_argv(units: Iterable[str]) -> list[str]:
    return ["systemctl", "reset-failed", *units]


def reload_argv() -> list[str]:
    return ["systemctl", "daemon-reload"]


def show_argv(units: Iterable[str]) -> list[str]:
    return ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *units]


def ask_for_network_argv() -> list[str]:
    return ["systemctl", "start", "--no-block", NETWORK_TARGET]


def journal_argv(unit: str, uid: int | None = None) -> list[str]:
    """What the processes of the unit have said, without what systemd says about it; `uid`: of the
    user whose unit it is, where it is none of root's."""
    argv = ["journalctl", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}"]
    if uid is not None:
        return [*argv, f"_SYSTEMD_USER_UNIT={unit}", f"_UID={uid}"]
    return [*argv, f"_SYSTEMD_UNIT={unit}"]


def last_words(journal: str) -> str:
    """The last lines that are the workload's own, or an error of podman's."""
    lines = [line for line in journal.splitlines() if line.strip() and not _NOISE.fullmatch(line)]
    return "\n".join(lines[-LOG_LINES:])


def generator_words(stderr: str) -> str:
    """What podman's generator objects to first, without how it came there."""
    for line in stderr.splitlines():
        words = re.sub(r"^quadlet-generator\[\d+\]: ", "", line.strip())
        if words and not words.startswith("Loading"):
            return words.removeprefix("converting ")
    return ""


def parse(stdout: str) -> dict[str, Unit]:
    """Blocks of `Key=Value`, apart by blank lines."""
    found = {}
    for block in stdout.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = values.get("Id", "")
        if name:
            found[name] = Unit(
                name,
                values.get("LoadState", ""),
                values.get("ActiveState", ""),
                values.get("SubState", ""),
                values.get("Result", ""),
                _whole(values.get("ExecMainStatus", "")),
                _whole(values.get("ExecMainStartTimestampMonotonic", "")) > 0,
                _whole(values.get("NRestarts", "")),
                _whole(values.get("MainPID", "")),
            )
    return found


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
