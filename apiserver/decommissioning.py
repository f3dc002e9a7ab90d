"""Taking a device out of service: the last that it is told, and from then on nobody changes it.

In one transaction it loses its labels, and with them its fleet, and is told what it has and that it
is dismissed (contract 3.7). Nothing from outside is needed for that: a Git server that is down must
not keep a device in service. The device says when it is done; a person deletes it then.
"""

from __future__ import annotations

import orjson
from pydantic import ValidationError

from apiserver import bindings, errors
from apiserver.auditing import Act, note
from apiserver.auth.identity import Caller
from apiserver.builtins import telling
from apiserver.operations import Operations
from apiserver.store import Transaction, contents, devices
from resources import digest, pause
from resources.device import Decommission
from resources.errors import INVALID, FieldError, Invalid
from resources.kind import Json
from resources.registry import DEVICE

REASON = "DeviceDecommissioned"
# What a client may write beside the target.
_HEAD = ("apiVersion", "kind", "metadata")


async def decommission(
    operations: Operations,
    caller: Caller,
    namespace: str,
    name: str,
    body: Json,
    *,
    dry_run: bool = False,
) -> Json:
    """The device as it is then. Raises NotFound, Unprocessable, Conflict the second time."""
    wanted = {key: value for key, value in body.items() if key not in _HEAD}
    try:
        Decommission.model_validate(wanted)
    except ValidationError as problem:
        detail = problem.errors(include_url=False, include_context=False)[0]["msg"]
        complaint = FieldError("target", INVALID, detail)
        raise errors.unprocessable(DEVICE, name, Invalid([complaint])) from problem

    def dismiss(tx: Transaction) -> Json:
        old = tx.get(DEVICE, namespace, name)
        if old is None:
            raise errors.not_found(DEVICE, name)
        if old["spec"].get("decommissioning"):
            raise errors.conflict(DEVICE, name, "it is being decommissioned already")
        row = devices.row_by_name(tx.connection, namespace, name)
        assert row is not None, "read in this transaction"
        bare = old | {"metadata": old["metadata"] | {"labels": {}}}
        freed = bindings.update_device(tx, row, old, bare)
        _dismissed(tx, freed, old["spec"] | {"decommissioning": wanted})
        stored = tx.get(DEVICE, namespace, name)
        assert stored is not None, "written just above"
        note(tx, Act(caller, "update", DEVICE, namespace, name, "decommission"), stored)
        message = f"Decommissioned by {caller.name}."
        telling.tell(tx, stored, REASON, message)
        return stored

    return await operations.store.write(dismiss, dry_run=dry_run)


def _dismissed(tx: Transaction, row: devices.Row, spec: Json) -> None:
    told = str(row["rendered_digest"] or "")
    kept = (tx.content(told) if told else None) or b"{}"
    document = orjson.loads(kept) | {"decommissioning": spec["decommissioning"]}
    body = digest.canonical(document)
    found = tx.digest_of(body, is_secret=contents.is_secret(told))
    columns = bindings.rendered_to(tx, row, found, body)
    columns |= {
        # Of the specification nothing was changed: the reference's generation stays too.
        "spec_digest": tx.put_content(digest.canonical(spec)),
        "decommissioning": 1,
        # Whatever it runs: there is nothing left that it could be brought back to.
        "pause": pause.FREE,
        "inputs_version": row["inputs_version"] + 1,
    }
    devices.save(tx, row, columns)
