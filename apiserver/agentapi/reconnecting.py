"""The first call of a device after the service's database was restored, and what it proves.

What a device says that it knows is compared with what the service knows of it, under the store
lock. Who is not ahead goes on; who is ahead is left alone until a person resumes it (`resuming`).
The answer to both says what an agent reports its whole status upon.
"""

from __future__ import annotations

import orjson

from apiserver import bindings
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins import telling
from apiserver.operations import Operations
from apiserver.store import Transaction, devices
from resources import pause
from resources.kind import Json
from resources.registry import DEVICE

REASON = "DeviceConflictPaused"
_CALLER = Caller(name="system:homeport:agents", role=CONTROLLER)


async def settle(operations: Operations, namespace: str, name: str, known: str | None) -> bool:
    """Write down where the device stands; whether it was awaited, and may go on. Repeating it
    changes nothing."""
    return await operations.store.write(lambda tx: _settle(operations, tx, namespace, name, known))


def _settle(
    operations: Operations, tx: Transaction, namespace: str, name: str, known: str | None
) -> bool:
    row = devices.row_by_name(tx.connection, namespace, name)
    if row is None:
        return False
    version = pause.version(known)
    found = pause.after_call(row["pause"], version, row["rendered_version"])
    if found == row["pause"]:
        return False
    changes: Json = {"pause": found, "connected": 1, "seen": 1}
    if version:
        # Until it reports, that is all that is known of what it runs.
        said = devices.running(row, version)
        changes |= {"agent_status": said, "reported_version": version}
    if row["decommissioning"]:
        # It is to be told, and nothing else is to become of it.
        changes |= {"pause": pause.FREE, "rendered_version": version + 1}
        devices.save(tx, row, changes)
        return False
    if found == pause.FREE:
        changes |= bindings.freed(tx, row)
    devices.save(tx, row, changes)
    if pause.is_conflict(found):
        message = (
            f"It runs version {version}, and the service, which was restored from a backup, knows "
            f"of {row['rendered_version']}. Resume it to bring it to what the service has."
        )
        stored = tx.get(DEVICE, namespace, name)
        assert stored is not None, "written just above"
        telling.tell(tx, stored, REASON, message)
    return not pause.is_conflict(found)


def asking_for_a_report(body: bytes) -> bytes:
    """An answer upon which agents report their whole status, as they do when they are paused: what
    the backup has of it is old, and an agent reports by itself only what changes."""
    document = orjson.loads(body)
    document["metadata"]["annotations"][devices.CONFLICT_PAUSED] = "true"
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
