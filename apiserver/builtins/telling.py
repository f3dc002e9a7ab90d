"""Events of the service's own: told in the transaction of what happened, so neither is without the
other, and written at its end, however many, by a look at what is there and two writes.

What is the same as what was told of the object within the hour raises the count of the event that
is there, so that no device that flaps, and no program that writes without end, fills the store with
its story. The uid of an event is made of what it tells, so the one that is there is found without
looking for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4, uuid5

from apiserver.builtins.events import STORED
from apiserver.store import Transaction, newsworthy, objects
from apiserver.storing import DEFAULT_NAMESPACE
from resources import event
from resources.kind import Json
from resources.news import News

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
    tx: Transaction, about: Json, reason: str, message: str, details: Json | None = None
) -> None:
    """Tell something of an object that is stored."""
    tx.announce(newsworthy.about(about), [News(reason, message, details)])


def announce(tx: Transaction, news: newsworthy.Announced) -> None:
    """Write what is told."""
    told: dict[str, list[tuple[newsworthy.About, News]]] = {}
    for about, each in news:
        told.setdefault(_uid(tx, about, each), []).append((about, each))
    asked = [uid for uid, times in told.items() if times[0][1].same_by != "none"]
    known = objects.by_uids(tx.connection, STORED, asked) if asked else {}
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


def _uid(tx: Transaction, about: newsworthy.About, news: News) -> str:
    if news.same_by == "none":
        return str(uuid4())
    of = about.uid or f"{about.kind}/{about.namespace}/{about.name}"
    story = f"{of}/{news.reason}/{tx.now_s // _HOUR_S}"
    return str(uuid5(_NAMESPACE, f"{story}/{news.message}" if news.same_by == "words" else story))


def _first(tx: Transaction, uid: str, about: newsworthy.About, news: News) -> Json:
    of = about.reference()
    said = event.told(of, news.reason, news.message, component=COMPONENT, at=tx.timestamp)
    prefix = about.name[:_PREFIX_MAX].rstrip(".-") or about.kind.lower()
    metadata = {
        "name": f"{prefix}.{uid.replace('-', '')[:16]}",
        "namespace": about.namespace,
        "uid": uid,
        "generation": 1,
        "creationTimestamp": tx.timestamp,
    }
    return {"metadata": metadata | event.noted(news.details), "spec": said}


def _once_more(
    tx: Transaction, stored: Json, times: Sequence[tuple[newsworthy.About, News]]
) -> Json:
    if not times:
        return stored
    last = times[-1][1]
    said = stored["spec"] | {
        "count": (stored["spec"].get("count") or 1) + len(times),
        "message": last.message[: event.MESSAGE_MAX],
        "lastTimestamp": tx.timestamp,
    }
    return stored | {"metadata": stored["metadata"] | event.noted(last.details), "spec": said}
