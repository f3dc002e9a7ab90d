"""Events of the service's own: told in the transaction of what happened, so neither is without the
other.

Of devices there are many, and some flap: what happens to one of them again within the hour raises
the count of the event that is there, so that no device ever fills the store with its story. Its
uid is made of what it is about, so the one that is there is found without looking for it. Of others
there are few, and each thing that is told of them stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4, uuid5

from apiserver.auth.identity import Caller
from apiserver.builtins.events import STORED
from apiserver.operations import Operations
from apiserver.store import Transaction, newsworthy, objects
from apiserver.storing import DEFAULT_NAMESPACE
from resources import event
from resources.devicenews import News
from resources.kind import Json
from resources.registry import DEVICE

COMPONENT = "homeport-apiserver"
# An event's name begins with that of what it is about, which may be as long as a name gets.
_PREFIX_MAX = 200
_HOUR_S: Final = 3600
_NAMESPACE: Final = UUID("8d2f3f4e-5b0c-4a39-9d0e-5d6c8c0c5e11")


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
    name = _name(metadata["name"], uuid4())
    document = {"metadata": {"name": name}, "spec": said}
    tx.draws(STORED, metadata["namespace"], name)
    operations.insert_in(tx, caller, STORED, document, metadata["namespace"])


def _name(about: str, uid: UUID) -> str:
    return f"{about[:_PREFIX_MAX].rstrip('.-')}.{uid.hex[:16]}"


def announce(tx: Transaction, news: newsworthy.Announced) -> None:
    """Write what is told of devices: a look at what is there, and two writes, for however many."""
    told: dict[str, list[tuple[newsworthy.About, News]]] = {}
    for about, each in news:
        story = f"{about.uid}/{each.reason}/{tx.now_s // _HOUR_S}"
        if about.kind.kind != DEVICE.kind:
            story += f"/{each.message}"
        told.setdefault(str(uuid5(_NAMESPACE, story)), []).append((about, each))
    known = objects.by_uids(tx.connection, STORED, told)
    fresh, again = [], []
    for uid, times in told.items():
        if uid in known:
            again.append(_once_more(tx, known[uid], times))
        else:
            fresh.append(_once_more(tx, _first(tx, uid, *times[0]), times[1:]))
    if fresh:
        tx.insert_all(STORED, fresh)
    if again:
        tx.update_all(STORED, again)


def _first(tx: Transaction, uid: str, about: newsworthy.About, news: News) -> Json:
    named = {"name": about.name, "namespace": about.namespace, "uid": about.uid}
    said = event.told(
        {
            "apiVersion": about.kind.api_version,
            "kind": about.kind.kind,
            "metadata": named | {"resourceVersion": about.resource_version},
        },
        news.reason,
        news.message,
        is_warning=news.is_warning,
        component=COMPONENT,
        at=tx.timestamp,
    )
    metadata = {
        "name": _name(about.name, UUID(uid)),
        "namespace": about.namespace,
        "uid": uid,
        "generation": 1,
        "creationTimestamp": tx.timestamp,
    }
    return {"metadata": metadata, "spec": said}


def _once_more(
    tx: Transaction, stored: Json, times: Sequence[tuple[newsworthy.About, News]]
) -> Json:
    if not times:
        return stored
    said = stored["spec"] | {
        "count": (stored["spec"].get("count") or 1) + len(times),
        "message": times[-1][1].message[: event.MESSAGE_MAX],
        "lastTimestamp": tx.timestamp,
    }
    return stored | {"spec": said}
