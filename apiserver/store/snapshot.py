"""What a reader sees, and what a mutation may do. Both are synchronous, over one open transaction.

The version is read inside the transaction, so that a list can never carry a version whose content
it lacks.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson
from sqlalchemy import (
    Connection,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
    update,
)

from apiserver.store import (
    auditlog,
    commits,
    contents,
    devices,
    keys,
    newsworthy,
    objects,
    overriding,
    sealing,
    stirring,
    wants,
    watchrule,
)
from apiserver.store.contents import Documents
from apiserver.store.dialect import CHANNEL, Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.sealing import Keyring
from apiserver.store.stirring import Witnesses
from apiserver.store.tables import CHANGE, COUNTER, DEVICE, META, OBJECT
from resources import digest, masking, timestamps
from resources.kind import Json, Kind
from resources.news import News
from resources.registry import ORGANIZATION
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector

_META = Prepared(select(META))


def _committing(dialect: str) -> Any:
    """The new version; on PostgreSQL the other processes hear of it when it is committed."""
    statement = update(META)
    if Dialect(dialect).is_sqlite:
        return statement
    told = func.pg_notify(literal_column(f"'{CHANNEL}'"), cast(META.c.version, Text))
    return statement.returning(told)


_NEW_VERSIONS = Prepared(_committing, ("version", "audit_version"))
_NEW_AUDIT_VERSION = Prepared(update(META), ("audit_version",))
_LOG = Prepared(insert(CHANGE))
_CHANGED_NAMES = Prepared(
    select(CHANGE.c.namespace, CHANGE.c.name)
    .where(CHANGE.c.kind == bindparam("kind"), CHANGE.c.resource_version > bindparam("after"))
    .distinct()
)


def _adding(dialect: str) -> Any:
    table = Dialect(dialect).upsert(COUNTER)
    return table.on_conflict_do_update(
        index_elements=["namespace", "fleet", "dimension", "state"],
        set_={"n": COUNTER.c.n + table.excluded.n},
    )


_ADD_COUNTS = Prepared(_adding)

CounterKey = tuple[str, str, str, str]
ChangeKey = tuple[str, str, str, str]


def is_device(kind: Kind) -> bool:
    return kind.kind == "Device"


class Snapshot:
    """One consistent state of the store."""

    def __init__(
        self, connection: Connection, dialect: Dialect, documents: Documents, keys: Keyring
    ) -> None:
        self.connection = connection
        self.dialect = dialect
        self.documents = documents
        self.keys = keys
        self._version: int | None = None

    @cached_property
    def _meta(self) -> dict[str, Any]:
        """Read when it is asked for, which most readers of one object never do: it is of the same
        state, whenever that is."""
        meta = _META.first(self.connection, {})
        assert meta is not None, "made when the store was opened"
        return meta

    @property
    def version(self) -> int:
        if self._version is None:
            self._version = int(self._meta["version"])
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version

    @property
    def compacted(self) -> int:
        return int(self._meta["compacted"])

    @property
    def audit_version(self) -> int:
        return int(self._meta["audit_version"])

    @property
    def store_uid(self) -> str:
        return str(self._meta["store_uid"])

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        if not is_device(kind):
            found = objects.get(self.connection, kind, namespace, name)
            return found and self._opened(kind, found)
        row = devices.row_by_name(self.connection, namespace, name)
        return None if row is None else self.device_of(kind, row)

    def device_of(self, kind: Kind, row: devices.Row) -> Json:
        """The Device that a row is."""
        return self._devices(kind, [row])[0]

    def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 0,
    ) -> Sequence[Json]:
        """Documents in order of (namespace, name), `after` that pair, `limit` at most (0: all)."""
        read = self.connection, kind
        where: dict[str, Any] = {"labels": labels, "fields": fields, "after": after, "limit": limit}
        if not is_device(kind):
            return [self._opened(kind, found) for found in objects.page(*read, namespace, **where)]
        return self._devices(kind, devices.page(self.connection, namespace, **where))

    def saying(self, kind: Kind, namespace: str, field: str, value: str) -> Sequence[Json]:
        """Objects in whose specification `field` is `value`, and perhaps others."""
        found = objects.saying(self.connection, kind, namespace, field, value)
        return [self._opened(kind, each) for each in found]

    def count(self, kind: Kind, namespace: str | None) -> int:
        """How many there are, without selectors."""
        table = DEVICE if is_device(kind) else OBJECT
        query = select(func.count()).select_from(table)
        if not is_device(kind):
            query = query.where(OBJECT.c.kind == kind.kind)
        if namespace is not None:
            query = query.where(table.c.namespace == namespace)
        return int(self.connection.execute(query).scalar_one())

    def current(self, kind: Kind, uids: Iterable[str]) -> dict[str, tuple[Json, watchrule.Current]]:
        """uid → the object and what selectors see of it, of those that there are."""
        if not is_device(kind):
            read = objects.by_uids(self.connection, kind, uids)
            found = {uid: self._opened(kind, document) for uid, document in read.items()}
            fields = {uid: objects.fields_of(kind, document) for uid, document in found.items()}
        else:
            rows = devices.rows_by_uid(self.connection, uids)
            documents = self._devices(kind, rows.values())
            found = {document["metadata"]["uid"]: document for document in documents}
            fields = {uid: devices.fields_of(row) for uid, row in rows.items()}
        return {uid: (document, _current(document, fields[uid])) for uid, document in found.items()}

    def content(self, name: str) -> bytes | None:
        """The blob under the digest `name`."""
        return contents.get(self.connection, self.keys, name)

    def digest_of(self, blob: bytes, *, is_secret: bool = False) -> str:
        """What `blob` is stored under here. A secret's digest depends on this store's key."""
        if not is_secret:
            return digest.of_bytes(blob)
        about = sealing.about_key(self.store_uid)
        return digest.keyed(
            bytes.fromhex(self.keys.opened_text(self._meta["content_key"], about)), blob
        )

    def changes(
        self, kind: Kind, namespace: str | None, after: int, limit: int
    ) -> Sequence[watchrule.Change]:
        """Rows of the log above `after`, in order."""
        query = select(CHANGE).where(CHANGE.c.kind == kind.kind, CHANGE.c.resource_version > after)
        if namespace is not None:
            query = query.where(CHANGE.c.namespace == namespace)
        query = query.order_by(CHANGE.c.resource_version).limit(limit)
        return [_change(row) for row in self.connection.execute(query)]

    def changed_names(self, kind: Kind, after: int) -> Sequence[tuple[str, str]]:
        """(namespace, name) of what changed above `after`."""
        values = {"kind": kind.kind, "after": after}
        rows = _CHANGED_NAMES.rows(self.connection, values)
        return [(row["namespace"], row["name"]) for row in rows]

    def counters(self, namespace: str, fleet: str | None = None) -> dict[str, dict[str, int]]:
        """dimension → state → number of devices, of a namespace or of one fleet in it."""
        query = select(COUNTER.c.dimension, COUNTER.c.state, func.sum(COUNTER.c.n).label("n"))
        query = query.where(COUNTER.c.namespace == namespace)
        if fleet is not None:
            query = query.where(COUNTER.c.fleet == fleet)
        query = query.group_by(COUNTER.c.dimension, COUNTER.c.state)
        found: dict[str, dict[str, int]] = {dimension: {} for dimension in devices.COUNTED}
        for row in self.connection.execute(query):
            if row.n:
                found[row.dimension][row.state] = int(row.n)
        return found

    def fleet_counters(self, namespace: str) -> dict[str, dict[str, dict[str, int]]]:
        """fleet → dimension → state → number of devices, in one statement."""
        query = select(COUNTER).where(COUNTER.c.namespace == namespace, COUNTER.c.n > 0)
        found: dict[str, dict[str, dict[str, int]]] = {}
        for row in self.connection.execute(query):
            found.setdefault(row.fleet, {}).setdefault(row.dimension, {})[row.state] = row.n
        return found

    def _opened(self, kind: Kind, document: Json) -> Json:
        return self.keys.opened(kind, document["metadata"]["uid"], document)

    def _devices(self, kind: Kind, rows: Iterable[Any]) -> Sequence[Json]:
        return devices.documents_of(self.connection, self.documents, kind, rows)


class Transaction(Snapshot):
    """A snapshot under the store lock that may write. Versions are consecutive from here on."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        documents: Documents,
        keys: Keyring,
        *,
        now: datetime,
        before_finish: Callable[[Transaction, str], None],
        announcer: newsworthy.Announce,
        note: Callable[[int, int, Iterable[str]], None],
        witnesses: Witnesses,
    ) -> None:
        super().__init__(connection, dialect, documents, keys)
        self.now = now
        self.writes = 0
        self._started_at = self.version
        self._given_out = 0
        self._before_finish = before_finish
        self._announcer = announcer
        self._news: list[tuple[newsworthy.About, News]] = []
        self._note = note
        self._log: list[dict[str, Any]] = []
        self._counts: Tally[CounterKey] = Tally()
        self._moved_backlogs: set[str] = set()
        self._witnesses = witnesses
        self._stirs: dict[stirring.Place, stirring.Stir] = {}
        self._audit: list[auditlog.Entry] = []
        self._is_key_named = False
        # What was looked for in vain: under the store lock nobody else makes it.
        self._absent: set[tuple[str, str, str]] = set()
        self._put: set[str] = set()
        self._namespaces: set[str] = set()

    @property
    def now_s(self) -> int:
        return int(self.now.timestamp())

    @cached_property
    def timestamp(self) -> str:
        return timestamps.of(self.now)

    def next_version(self, number: int = 1) -> int:
        """The first of `number` consecutive versions, ours alone."""
        first = self.version + 1
        self.version += number
        self._given_out += number
        self.writes += number
        return first

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        place = kind.kind, namespace, name
        if place in self._absent:
            return None
        found = super().get(kind, namespace, name)
        if found is None:
            self._absent.add(place)
        return found

    def has_namespace(self, name: str) -> bool:
        """Asked for each object that is made: once in a batch it is looked up."""
        if name not in self._namespaces and self.get(ORGANIZATION, "", name) is not None:
            self._namespaces.add(name)
        return name in self._namespaces

    def draws(self, kind: Kind, namespace: str, name: str) -> None:
        """Say that a name was drawn at random, from so many that nobody has it."""
        self._absent.add((kind.kind, namespace, name))

    def appears(self, kind: str, namespace: str, name: str) -> None:
        """Say that an object is about to be made."""
        self._absent.discard((kind, namespace, name))

    def insert(self, kind: Kind, document: Json) -> Json:
        """Store a new object. Its metadata is complete but for the version."""
        assert not is_device(kind), "devices are written by devices.save"
        version = self.next_version()
        values = objects.values_of(kind, document, version)
        self.appears(values["kind"], values["namespace"], values["name"])
        objects.write(self.connection, kind, self._sealed(kind, values), new=True)
        objects.write_labels(self.connection, values, new=True)
        objects.write_owners(self.connection, document, new=True)
        if kind.kind == "Fleet":
            objects.write_fleet_selector(self.connection, document)
            overriding.write_fleet(self.connection, document)
        stored = objects.document_of(kind, values)
        new = values["labels"], objects.dumps(objects.fields_of(kind, stored))
        self.log_change(version, _key(values), "ADDED", old=None, new=new)
        return stored

    def update(self, kind: Kind, old: Json, new: Json) -> Json:
        """Store what changed. What changes nothing gets no version and returns `old`."""
        assert not is_device(kind), "devices are written by devices.save"
        if _same(old, new):
            return old
        version = self.next_version()
        values = objects.values_of(kind, new, version)
        objects.write(self.connection, kind, self._sealed(kind, values), new=False)
        was = objects.values_of(kind, old, 0)
        if was["labels"] != values["labels"]:
            objects.write_labels(self.connection, values, new=False)
        if was["meta"] != values["meta"]:
            objects.write_owners(self.connection, new, new=False)
        if kind.kind == "Fleet" and objects.match_labels(old) != objects.match_labels(new):
            objects.write_fleet_selector(self.connection, new)
        if kind.kind == "Fleet" and overriding.kept_by(old) != overriding.kept_by(new):
            overriding.write_fleet(self.connection, new)
        stored = objects.document_of(kind, values)
        before = was["labels"], objects.dumps(objects.fields_of(kind, old))
        after = values["labels"], objects.dumps(objects.fields_of(kind, stored))
        differs = before != after
        self.log_change(
            version,
            _key(values),
            "MODIFIED",
            old=before if differs else None,
            new=after if differs else None,
        )
        return stored

    def delete(self, kind: Kind, document: Json) -> Json:
        """Remove; the log keeps the last body. Returns it with its fresh version."""
        metadata = document["metadata"]
        if is_device(kind):
            row = devices.row_by_name(self.connection, metadata["namespace"], metadata["name"])
            assert row is not None, "read in this transaction"
            version = devices.remove(self, row, document)
            return document | {"metadata": metadata | {"resourceVersion": str(version)}}
        version = self.next_version()
        last = document | {"metadata": metadata | {"resourceVersion": str(version)}}
        if kind.kind == ORGANIZATION.kind:
            self._namespaces.discard(metadata["name"])
            # With it goes who could read that.
            self._news = [told for told in self._news if told[0].namespace != metadata["name"]]
        objects.remove(self.connection, metadata["uid"])
        if kind.kind == "TemplateVersion":
            contents.unrefer(self.connection, metadata["uid"])
            wants.forget(self.connection, metadata["uid"])
        if kind.kind == "Fleet":
            objects.write_fleet_selector(self.connection, document, gone=True)
            overriding.write_fleet(self.connection, document, gone=True)
        values = objects.values_of(kind, document, version)
        old = values["labels"], objects.dumps(objects.fields_of(kind, document))
        # Shown to watchers; what is secret in it ends here.
        body = objects.dumps(masking.masked(kind, last))
        self.log_change(version, _key(values), "DELETED", old=old, new=None, body=body)
        return last

    def insert_all(self, kind: Kind, documents: Sequence[Json]) -> None:
        """Store new objects that have no labels, owners or secrets."""
        first = self.next_version(len(documents))
        rows = [objects.values_of(kind, d, v) for v, d in enumerate(documents, first)]
        objects.write_all(self.connection, rows, new=True)
        for values, document in zip(rows, documents, strict=True):
            self.appears(values["kind"], values["namespace"], values["name"])
            new = values["labels"], objects.dumps(objects.fields_of(kind, document))
            self.log_change(values["resource_version"], _key(values), "ADDED", old=None, new=new)

    def update_all(self, kind: Kind, documents: Sequence[Json]) -> None:
        """Store what changed of such objects, of which nothing that is selected by did."""
        first = self.next_version(len(documents))
        rows = [objects.values_of(kind, d, v) for v, d in enumerate(documents, first)]
        objects.write_all(self.connection, rows, new=False)
        for values in rows:
            version = values["resource_version"]
            self.log_change(version, _key(values), "MODIFIED", old=None, new=None)

    def delete_all(self, kind: Kind, documents: Sequence[Json]) -> None:
        """Remove such objects."""
        first = self.next_version(len(documents))
        objects.remove_all(self.connection, [d["metadata"]["uid"] for d in documents])
        for version, document in enumerate(documents, first):
            metadata = document["metadata"] | {"resourceVersion": str(version)}
            values = objects.values_of(kind, document, version)
            old = values["labels"], objects.dumps(objects.fields_of(kind, document))
            body = objects.dumps(document | {"metadata": metadata})
            self.log_change(version, _key(values), "DELETED", old=old, new=None, body=body)

    def put_content(self, blob: bytes, *, is_secret: bool = False) -> str:
        """Store a blob under its digest, which is returned."""
        name = self.digest_of(blob, is_secret=is_secret)
        self.put_contents({name: blob})
        return name

    def put_contents(self, blobs: Mapping[str, bytes]) -> None:
        """Store blobs under the digests that `digest_of` gave."""
        self.writes += 1
        if any(contents.is_secret(name) for name in blobs):
            self._name_key()
        # Devices that are born together have the same specification.
        fresh = {name: blob for name, blob in blobs.items() if name not in self._put}
        contents.put(self.connection, self.keys, fresh, self.now_s)
        self._put.update(fresh)

    def touch_content(self, name: str) -> int | None:
        """Renew the age of a blob; its size, None when it is not there."""
        self.writes += 1
        return contents.touch(self.connection, name, self.now_s)

    def refer(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Note that parents (digests, uids) point at contents, which so are kept."""
        self.writes += 1
        contents.refer(self.connection, self.dialect, pairs)

    def log_change(
        self,
        version: int,
        key: ChangeKey,
        type_: watchrule.EventType,
        *,
        old: tuple[str, str] | None,
        new: tuple[str, str] | None,
        body: str | None = None,
    ) -> None:
        """One row of the log, written with the others of the batch."""
        kind, namespace, name, uid = key
        self._log.append(
            {
                "resource_version": version,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "uid": uid,
                "type": type_,
                "old_labels": old and old[0],
                "old_fields": old and old[1],
                "new_labels": new and new[0],
                "new_fields": new and new[1],
                "body": body,
                "at": self.now_s,
            }
        )

    def _sealed(self, kind: Kind, values: dict[str, Any]) -> dict[str, Any]:
        """The row, with its secrets sealed."""
        if not masking.secret_paths(kind.model) or values["spec"] is None:
            return values
        self._name_key()
        part = {"spec": orjson.loads(values["spec"])}
        return values | {"spec": objects.dumps(self.keys.sealed(kind, values["uid"], part)["spec"])}

    def _name_key(self) -> None:
        """Before something is sealed: another process may have seen that none needs our key."""
        if not self._is_key_named and self.keys.first != sealing.PLAIN:
            keys.name(self.connection, self.keys, self.store_uid)
        self._is_key_named = True

    def audit(self, entries: Iterable[auditlog.Entry]) -> None:
        """Tell what was done, so that neither is there without the other."""
        before = len(self._audit)
        self._audit.extend(entries)
        self.writes += len(self._audit) - before

    def tally(self, key: CounterKey, by: int) -> None:
        self._counts[key] += by

    def announce(self, about: newsworthy.About, news: Iterable[News]) -> None:
        """Something is to be told of an object."""
        self._news.extend((about, each) for each in news)

    def backlog_moved(self, namespace: str) -> None:
        """The devices to render of a namespace changed in number."""
        self._moved_backlogs.add(namespace)

    def rollout_moved(self, namespace: str, rollout: str, stir: stirring.Stir) -> None:
        """A device got to where its rollout may wait for it."""
        known = self._stirs.setdefault((namespace, rollout), stir)
        known.is_failure = known.is_failure or stir.is_failure

    def finish(self, writer: str, number: int) -> int:
        """Write what was gathered, as batch `number` of the process `writer`; the last thing before
        the commit. Returns the new version."""
        for namespace in sorted(self._moved_backlogs):
            self._before_finish(self, namespace)
        stirring.wake(self, self._stirs, self._witnesses)
        if self._news:
            self._announcer(self, self._news)
        _LOG.run_many(self.connection, self._log)
        told = {"version": self.version, "audit_version": self.audit_version}
        if self._audit:
            written = auditlog.write(self.connection, self.audit_version, self.now_s, self._audit)
            told["audit_version"] = written
        add_counts(self.connection, {key: by for key, by in self._counts.items() if by})
        if self.version != self._started_at:
            _NEW_VERSIONS.run(self.connection, told)
            self._tell_moved()
        elif self._audit:
            _NEW_AUDIT_VERSION.run(self.connection, told)
        if self.writes:
            commits.note(self, writer, number)
        return self.version

    def _tell_moved(self) -> None:
        """Which kinds the batch moves; nothing where that is not known, as after a restore."""
        if self.version != self._started_at + self._given_out:
            return
        kinds = {row["kind"] for row in self._log}
        if len(self._log) != self._given_out:
            # The rest was logged by set changes, which are of devices.
            kinds.add("Device")
        self._note(self._started_at, self.version, kinds)


def add_counts(connection: Connection, moved: dict[CounterKey, int]) -> None:
    names = ("namespace", "fleet", "dimension", "state")
    rows = (dict(zip(names, key, strict=True)) | {"n": by} for key, by in moved.items())
    _ADD_COUNTS.run_many(connection, rows)


def _key(values: dict[str, Any]) -> ChangeKey:
    return values["kind"], values["namespace"], values["name"], values["uid"]


def _current(document: Json, fields: watchrule.Fields) -> watchrule.Current:
    metadata = document["metadata"]
    return watchrule.Current(int(metadata["resourceVersion"]), metadata.get("labels") or {}, fields)


def _same(old: Json, new: Json) -> bool:
    def without_version(document: Json) -> Json:
        rest = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
        return document | {"metadata": rest}

    return without_version(old) == without_version(new)


def _change(row: Any) -> watchrule.Change:
    def pair(labels: str | None, fields: str | None) -> tuple[Any, Any] | None:
        if labels is None or fields is None:
            return None
        return orjson.loads(labels), orjson.loads(fields)

    return watchrule.Change(
        version=row.resource_version,
        kind=row.kind,
        namespace=row.namespace,
        name=row.name,
        uid=row.uid,
        type=row.type,
        old=pair(row.old_labels, row.old_fields),
        new=pair(row.new_labels, row.new_fields),
        body=None if row.body is None else orjson.loads(row.body),
    )
