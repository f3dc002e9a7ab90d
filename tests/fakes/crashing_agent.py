"""The agent's loop on a real disk and a real podman, which kills itself (SIGKILL) where it is told.

    python -m tests.fakes.crashing_agent ROOT DEVICE.json PLAN.json REPORT.json

PLAN is a list of [label, mode]. A label names a record of the journal and, for steps, the state
that they are done in; the modes are `before` the
record is written, `torn` in the middle of it, `after` it (which is before its effect), and `during`
the effect: with a command started, or a file written and not yet renamed. What was done is noted in
PLAN.json.done, so that the next life gets past it. The product has no hook for any of this: the
killing is in the world that is given to it.

Ends with 0 when the device has settled, having written what it claims into REPORT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent import loop, settings, states, world
from agent.linux import LinuxWorld
from agent.mailbox import Mailbox

Json = dict[str, Any]

TIMES = settings.LoopSettings(
    start_grace_s=0.5,
    stability_s=0.1,
    verify_interval_s=0.05,
    retry_base_s=0.1,
    retry_max_s=1.0,
    repair_interval_s=5.0,
)
PASSES_MAX = 600
MUTATING = ("pull", "create", "start", "stop", "rm", "restart")


def label_of(record: Json, state: str) -> str:
    match record["kind"]:
        case "intent" | "outcome":
            step = record["step"]
            return f"{state}: {record['kind']} {step['do']} {step.get('path', '')}".strip()
        case "state":
            return f"state {record['state']['name']}"
        case kind:
            return str(kind)


class CrashingWorld(LinuxWorld):
    def __init__(self, root: str, plan: Path) -> None:
        super().__init__(root)
        self._done_file = plan.with_name(f"{plan.name}.done")
        self._seen_file = plan.with_name(f"{plan.name}.seen")
        done = self._done_file.read_text().splitlines() if self._done_file.exists() else []
        pairs = {(label, mode) for label, mode in json.loads(plan.read_text())}
        self._plan = pairs - {tuple(line.split("\t")) for line in done}
        self._effect = ""
        self.state: Callable[[], str] = lambda: ""

    def append(self, path: str, data: bytes) -> None:
        if not path.endswith("journal.jsonl"):
            super().append(path, data)
            return
        label = label_of(json.loads(data.split(b" ", 1)[1]), self.state())
        with self._seen_file.open("a") as seen:
            seen.write(f"{label}\n")
        if self._is_due(label, "before"):
            self._die(label, "before")
        if self._is_due(label, "torn"):
            super().append(path, data[: len(data) // 2])
            self._die(label, "torn")
        super().append(path, data)
        if self._is_due(label, "after"):
            self._die(label, "after")
        self._effect = label if ": intent " in label else ""

    def _chown(self, handle: int, uid: int, gid: int) -> None:
        # Between the bytes of a file and its rename.
        if self._is_due(self._effect, "during"):
            self._die(self._effect, "during")
        super()._chown(handle, uid, gid)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed:
        if len(argv) > 1 and argv[1] in MUTATING and self._is_due(self._effect, "during"):
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert child.stdin is not None
            child.stdin.write(stdin)
            child.stdin.close()
            self._die(self._effect, "during")
        return super().run(argv, timeout_s=timeout_s, stdin=stdin, env=env, cwd=cwd)

    def _is_due(self, label: str, mode: str) -> bool:
        return (label, mode) in self._plan

    def _die(self, label: str, mode: str) -> NoReturn:
        with self._done_file.open("a") as done:
            done.write(f"{label}\t{mode}\n")
            done.flush()
            os.fsync(done.fileno())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still here")


def main(root: str, device: str, plan: str, report: str) -> int:
    where = CrashingWorld(root, Path(plan))
    mailbox = Mailbox()
    document = json.loads(Path(device).read_text())
    version = document["metadata"]["annotations"]["device-controller/renderedVersion"]
    agent = loop.Reconciler(where, TIMES, mailbox, lambda: True)
    where.state = lambda: type(agent.state).__name__
    for _ in range(PASSES_MAX):
        if mailbox.known_version() != version:
            mailbox.offer_spec(document)
        rest_s = agent.run_once()
        if rest_s >= TIMES.repair_interval_s and isinstance(
            agent.state, states.Idle | states.Refused
        ):
            Path(report).write_text(json.dumps(mailbox.status()))
            return 0
        if rest_s:
            where.sleep(rest_s)
    print(f"did not settle: {agent.state}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
