"""Events of the service's own: told in the transaction of what happened, so neither is without the
other."""

from __future__ import annotations

from uuid import uuid4

from apiserver.auth.identity import Caller
from apiserver.builtins.events import STORED
from apiserver.operations import Operations
from apiserver.store import Transaction
from resources.kind import Json

COMPONENT = "homeport-apiserver"
MESSAGE_MAX = 1024
# An event's name begins with that of what it is about, which may be as long as a name gets.
_PREFIX_MAX = 200


def tell(
    operations: Operations,
    tx: Transaction,
    caller: Caller,
    about: Json,
    reason: str,
    message: str,
    *,
    is_warning: bool = False,
) -> None:
    """Write one event about an object that is stored."""
    metadata = about["metadata"]
    said = {
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": reason,
        "message": message[:MESSAGE_MAX],
        "type": "Warning" if is_warning else "Normal",
        "source": {"component": COMPONENT},
        "firstTimestamp": tx.timestamp,
        "lastTimestamp": tx.timestamp,
        "count": 1,
    }
    name = f"{metadata['name'][:_PREFIX_MAX].rstrip('.-')}.{uuid4().hex[:16]}"
    document = {"metadata": {"name": name}, "spec": said}
    operations.insert_in(tx, caller, STORED, document, metadata["namespace"])
