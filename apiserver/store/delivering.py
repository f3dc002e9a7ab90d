"""What an agent is given: which version is current, its body, and that it was delivered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, literal_column, select, update

from apiserver.store import devices
from apiserver.store.prepared import Prepared, among, texts
from apiserver.store.tables import DEVICE
from resources import overrides, pause
from resources.kind import Json, Kind

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a poll must know: which version is current, and what its body is cached under."""

    uid: str
    name: str
    rendered_version: int
    delivered_version: int
    rendered_digest: str | None
    retry_generation: int
    connected: bool
    pause: int = pause.FREE

    def is_news(self, known: str | None) -> bool:
        """Whether a device that knows `known` has something to fetch; versions differ as text. Who
        is to be resumed is told so until it has reported, and then has to wait."""
        if not self.rendered_version or (self.pause == pause.HEARD and known is not None):
            return False
        return str(self.rendered_version) != known

    def is_to_settle(self, known: str | None) -> bool:
        """Whether it calls for the first time after a restore, or proves that there was one."""
        known_here = self.rendered_version
        return pause.after_call(self.pause, pause.version(known), known_here) != self.pause


# Only upwards: of two polls that overlap the older may be marked last.
_MARK = Prepared(
    update(DEVICE)
    .where(DEVICE.c.uid == bindparam("marked"), DEVICE.c.delivered_version < bindparam("version"))
    .values(delivered_version=bindparam("version"), reported_since_delivery=literal_column("0")),
    (),
)

_DELIVERY = select(
    DEVICE.c.uid,
    DEVICE.c.namespace,
    DEVICE.c.name,
    DEVICE.c.rendered_version,
    DEVICE.c.delivered_version,
    DEVICE.c.rendered_digest,
    DEVICE.c.retry_generation,
    DEVICE.c.connected,
    DEVICE.c.pause,
)
_OF_ONE = Prepared(
    _DELIVERY.where(
        DEVICE.c.namespace == bindparam("namespace"), DEVICE.c.name == bindparam("name")
    )
)
_OF_MANY = Prepared(
    lambda dialect: _DELIVERY.where(
        DEVICE.c.namespace == bindparam("namespace"), among(dialect, DEVICE.c.name, "names")
    )
)


def _delivery(row: devices.Row) -> Delivery:
    return Delivery(
        uid=row["uid"],
        name=row["name"],
        rendered_version=row["rendered_version"],
        delivered_version=row["delivered_version"],
        rendered_digest=row["rendered_digest"],
        retry_generation=row["retry_generation"],
        connected=bool(row["connected"]),
        pause=row["pause"],
    )


def delivery(snapshot: Snapshot, namespace: str, name: str) -> Delivery | None:
    row = _OF_ONE.first(snapshot.connection, {"namespace": namespace, "name": name})
    return None if row is None else _delivery(row)


def deliveries(
    snapshot: Snapshot, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Delivery]:
    """Deliveries of many devices, one statement for each namespace."""
    by_namespace: dict[str, list[str]] = {}
    for namespace, name in names:
        by_namespace.setdefault(namespace, []).append(name)
    found: dict[tuple[str, str], Delivery] = {}
    for namespace, wanted in by_namespace.items():
        if len(wanted) == 1:
            one = delivery(snapshot, namespace, wanted[0])
            found |= {} if one is None else {(namespace, one.name): one}
            continue
        values = {"namespace": namespace, "names": texts(snapshot.connection, wanted)}
        for row in _OF_MANY.rows(snapshot.connection, values):
            found[namespace, row["name"]] = _delivery(row)
    return found


def rendered_device(snapshot: Snapshot, kind: Kind, namespace: str, name: str) -> Json | None:
    """The Device whose spec is the rendered one. None when it is gone; a document without `spec`
    when it was never rendered."""
    row = devices.row_by_name(snapshot.connection, namespace, name)
    if row is None:
        return None
    if row["rendered_digest"] is None:
        document = devices.document_of(kind, row, {})
        del document["spec"]
        return document
    specs = snapshot.documents.fetch(snapshot.connection, [row["rendered_digest"]])
    return document_of(kind, row, specs[row["rendered_digest"]])


def document_of(kind: Kind, row: devices.Row, rendered: Json) -> Json:
    """The Device as its agent gets it: `rendered` is the document under its digest."""
    return devices.document_of(kind, row, overrides.laid_over(rendered, devices.wished(row)))


def mark_delivered(tx: Transaction, delivered: Iterable[tuple[str, int]]) -> None:
    """Note which version each device was answered with. No version moves: nobody watches it."""
    rows = [{"marked": uid, "version": version} for uid, version in delivered]
    _MARK.run_many(tx.connection, rows)
    tx.writes += len(rows)
