"""What the agent writes down before it acts, so that another life can take over.

One line a record, `crc32 json\n`, appended and synced before the effect that it announces. A crash
can only tear the last line, which is then as if it had not been written: the effect had not begun.
A damaged line elsewhere is disk rot; the lines that are whole still count, the rest is kept aside.

The journal has one writer, the loop. It holds no secret: steps name paths and digests, never
contents or environments. `fold` turns records into a `Memory`; compaction replaces all records by
one that says the same, atomically.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable
from typing import Any

from agent import errors, states, world
from resources.records import dataclass, field, replace

Json = dict[str, Any]

# Compacted beyond this; a record has about 200 bytes.
RECORDS_MAX = 400
# A failed version is never forgotten while it could be delivered again; more than these are not.
REFUSALS_MAX = 20
DAMAGED_BYTES_MAX = 1 << 20

MEMORY = "memory"
STATE = "state"
COMMIT = "commit"
REFUSE = "refuse"
INTENT = "intent"
OUTCOME = "outcome"
BOOT = "boot"
MENDED = "mended"
WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Refusal:
    target: states.Target
    failure: errors.Failure


@dataclass(frozen=True, slots=True)
class Memory:
    """All that outlives the process. `committed` None = nothing was ever committed here."""

    state: states.State = field(default_factory=states.Idle)
    committed: states.Target | None = None
    committed_at: str = ""
    refusals: tuple[Refusal, ...] = ()
    steps_in_target: int = 0
    boots_without_commit: int = 0
    boot_id: str = ""
    # Reboots that were to bring back the committed system, since it last ran.
    repair_reboots: int = 0
    # Going back from a refused target was given up: the device is not whole on what is committed.
    is_behind: bool = False

    def refusal_of(self, target: states.Target) -> Refusal | None:
        """By version, and by content too: a new number does not make bad content good."""
        for refusal in reversed(self.refusals):
            if refusal.target.version == target.version:
                return refusal
            if target.spec_hash and refusal.target.spec_hash == target.spec_hash:
                return refusal
        return None


class Journal:
    """The file. `load` first; `append` returns when the record is on the disk."""

    def __init__(self, where: world.World, path: str) -> None:
        self._world = where
        self._path = path
        self._records = 0
        self._is_torn = False
        self.memory = Memory()

    def load(self) -> Memory:
        raw = self._world.read(self._path) or b""
        records, is_damaged = parse(raw)
        self.memory = fold(records)
        self._records = len(records)
        if is_damaged:
            self._keep_aside(raw)
            self.compact()
        return self.memory

    def append(self, record: Json) -> Memory:
        if self._is_torn:
            self.compact()
        # A disk that is full may take half a line; the next record must not be glued to it.
        self._is_torn = True
        self._world.append(self._path, line(record))
        self._is_torn = False
        self.memory = step(self.memory, record)
        self._records += 1
        if self._records > RECORDS_MAX:
            self.compact()
        return self.memory

    def compact(self) -> None:
        """Safe at any moment: a crash leaves the old records or the one that equals them."""
        record = {"kind": MEMORY, **encode(self.memory)}
        self._world.write(self._path, line(record), mode=0o600, uid=0, gid=0)
        self._records = 1
        self._is_torn = False

    def _keep_aside(self, raw: bytes) -> None:
        kept = raw[-DAMAGED_BYTES_MAX:]
        self._world.write(f"{self._path}.damaged", kept, mode=0o600, uid=0, gid=0)


def line(record: Json) -> bytes:
    text = json.dumps(record, separators=(",", ":"), sort_keys=True).encode()
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def parse(raw: bytes) -> tuple[list[Json], bool]:
    """The records that are whole, and whether anything was not."""
    records: list[Json] = []
    lines = raw.split(b"\n")
    is_damaged = lines.pop() != b""
    for text in lines:
        checksum, _, body = text.partition(b" ")
        if checksum != f"{zlib.crc32(body):08x}".encode():
            is_damaged = True
            continue
        try:
            record = json.loads(body)
        except ValueError:
            is_damaged = True
            continue
        records.append(record)
    return records, is_damaged


def fold(records: Iterable[Json]) -> Memory:
    """Records that are whole but make no sense to this agent are passed over, never fatal."""
    memory = Memory()
    for record in records:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            memory = step(memory, record)
    return memory


def step(memory: Memory, record: Json) -> Memory:
    """What is remembered after `record`. Kinds of a newer agent are passed over."""
    match record["kind"]:
        case "memory":
            return decode(record)
        case "state":
            state = states.decode(record["state"])
            # A new target, a fresh attempt at the same one, and one that was put off before it had
            # begun have their full budget.
            is_new = states.target_of(state) != states.target_of(memory.state) or isinstance(
                state, states.Fetching | states.Staged
            )
            steps = 0 if is_new else memory.steps_in_target
            boots = 0 if is_new else memory.boots_without_commit
            return replace(
                memory,
                state=state,
                steps_in_target=steps,
                boots_without_commit=boots,
                is_behind=memory.is_behind or record.get("isBehind", False),
            )
        case "commit":
            return replace(
                memory,
                state=states.Idle(),
                committed=states.Target(*record["target"]),
                committed_at=record["at"],
                steps_in_target=0,
                boots_without_commit=0,
                repair_reboots=0,
                is_behind=False,
            )
        case "refuse":
            refusal = _refusal(record)
            # An old system that did not come up on the way back does not get all its tries again.
            before = memory.state
            tried = before.reboots if isinstance(before, states.RollingBack) else 0
            kept = tuple(r for r in memory.refusals if r.target != refusal.target)
            return replace(
                memory,
                state=states.Refused(refusal.target, refusal.failure),
                refusals=(*kept, refusal)[-REFUSALS_MAX:],
                repair_reboots=tried,
                is_behind=record.get("isBehind", False),
                steps_in_target=0,
                boots_without_commit=0,
            )
        case "intent":
            counts = states.counts_steps(memory.state)
            is_repair = isinstance(memory.state, states.Idle | states.Refused)
            is_reboot = is_repair and record["step"]["do"] == "Reboot"
            return replace(
                memory,
                steps_in_target=memory.steps_in_target + counts,
                repair_reboots=memory.repair_reboots + is_reboot,
            )
        case "mended":
            return replace(memory, repair_reboots=0)
        case "whole":
            return replace(memory, is_behind=False)
        case "boot":
            counts = states.counts_steps(memory.state) and bool(memory.boot_id)
            return replace(
                memory,
                boot_id=record["bootID"],
                boots_without_commit=memory.boots_without_commit + counts,
            )
        case _:
            return memory


def encode(memory: Memory) -> Json:
    return {
        "state": states.encode(memory.state),
        "committed": _pair(memory.committed) if memory.committed else None,
        "committedAt": memory.committed_at,
        "refusals": [refuse(r.target, r.failure) for r in memory.refusals],
        "steps": memory.steps_in_target,
        "boots": memory.boots_without_commit,
        "bootID": memory.boot_id,
        "repairReboots": memory.repair_reboots,
        "isBehind": memory.is_behind,
    }


def decode(record: Json) -> Memory:
    committed = record["committed"]
    return Memory(
        state=states.decode(record["state"]),
        committed=states.Target(*committed) if committed else None,
        committed_at=record["committedAt"],
        refusals=tuple(_refusal(r) for r in record["refusals"]),
        steps_in_target=record["steps"],
        boots_without_commit=record["boots"],
        boot_id=record["bootID"],
        repair_reboots=record.get("repairReboots", 0),
        is_behind=record.get("isBehind", False),
    )


def entered(state: states.State, *, is_behind: bool = False) -> Json:
    record = {"kind": STATE, "state": states.encode(state)}
    return {**record, "isBehind": True} if is_behind else record


def commit(target: states.Target, at: str) -> Json:
    """The one record that makes an update final; the spec files follow it."""
    return {"kind": COMMIT, "target": _pair(target), "at": at}


def refuse(target: states.Target, failure: errors.Failure, *, is_behind: bool = False) -> Json:
    record = {"kind": REFUSE, "target": _pair(target), "failure": states.encode_failure(failure)}
    return {**record, "isBehind": True} if is_behind else record


def intent(words: Json) -> Json:
    return {"kind": INTENT, "step": words}


def outcome(words: Json, trouble: str = "") -> Json:
    return {"kind": OUTCOME, "step": words, **({"trouble": trouble} if trouble else {})}


def booted(boot_id: str) -> Json:
    return {"kind": BOOT, "bootID": boot_id}


def whole() -> Json:
    """The device is as what is committed says, after going back had been given up."""
    return {"kind": WHOLE}


def mended() -> Json:
    """The committed system runs again: the next drift is repaired anew."""
    return {"kind": MENDED}


def _pair(target: states.Target) -> list[str]:
    return [target.version, target.spec_hash]


def _refusal(record: Json) -> Refusal:
    failure = states.decode_failure(record["failure"])
    return Refusal(states.Target(*record["target"]), failure)
