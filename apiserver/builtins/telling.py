"""Events of the service's own: told in the transaction of what happened, so neither is without the
other."""

from __future__ import annotations

from uuid import uuid4

from apiserver.auth.identity import Caller
from apiserver.builtins.events import STORED
from apiserver.operations import Operations
from apiserver.store import Transaction
from apiserver.storing import DEFAULT_NAMESPACE
from resources import event
from resources.kind import Json

COMPONENT = "homeport-apiserver"
# An event's name begins with that of what it is about, which may be as long as a name gets.
_PREFIX_MAX = 200


def system(part: str) -> Json:
    """What an event is about that is about the service: nothing that is stored, in the first
    namespace, as the reference tells it."""
    metadata = {
        "name": part,
        "namespace": DEFAULT_NAMESPACE,
        "uid": "",
        "resourceVersion": "",
    }
    return {"apiVersion": "flightctl.io/v1beta1", "kind": "System", "metadata": metadata}


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
    said = event.told(
        about, reason, message, is_warning=is_warning, component=COMPONENT, at=tx.timestamp
    )
    name = f"{metadata['name'][:_PREFIX_MAX].rstrip('.-')}.{uuid4().hex[:16]}"
    document = {"metadata": {"name": name}, "spec": said}
    operations.insert_in(tx, caller, STORED, document, metadata["namespace"])
