"""The schema. Alembic migrates it; hot statements are SQLAlchemy Core on these tables.

Times that people see are RFC 3339 text, times that only we compare are unix seconds. JSON is text:
the database never looks into it, but for the change rows that set statements build.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, Table, Text, text
from sqlmodel import Field, SQLModel


def _text(*, nullable: bool = False, key: bool = False, default: str | None = None) -> Any:
    column = Column(Text, nullable=nullable, primary_key=key, server_default=default)
    return Field(default=None, sa_column=column)


def _big(*, nullable: bool = False, key: bool = False, default: int | None = None) -> Any:
    server_default = None if default is None else str(default)
    column = Column(
        BigInteger,
        nullable=nullable,
        primary_key=key,
        autoincrement=False,
        server_default=server_default,
    )
    return Field(default=None, sa_column=column)


class StoreMeta(SQLModel, table=True):
    """One row: where the sequence stands, and what all processes on this store share."""

    __tablename__ = "store_meta"
    id: int = _big(key=True)
    store_uid: str = _text()
    version: int = _big()
    compacted: int = _big()
    event_version: int = _big()
    # Hexadecimal, sealed: what digests of secrets are keyed with. It never changes, or they would.
    content_key: str = _text(default="")
    # Of the authority whose certificates the devices of this store have: SHA-256 of its key.
    authority: str = _text(default="")
    # The number of the last row of the audit.
    audit_version: int = _big(default=0)


class EncryptionKey(SQLModel, table=True):
    """A key that values need, and a value that only the right one opens. See `keys`."""

    __tablename__ = "encryption_key"
    name: str = _text(key=True)
    canary: str = _text()


class CommitMark(SQLModel, table=True):
    """The last batch of each process that was committed. See `commits`."""

    __tablename__ = "commit_mark"
    writer: str = _text(key=True)
    number: int = _big()
    at: int = _big()


class ObjectRow(SQLModel, table=True):
    """Every kind of which there are thousands at most. `meta` holds the rest of the metadata."""

    __tablename__ = "object"
    uid: str = _text(key=True)
    kind: str = _text()
    namespace: str = _text()
    name: str = _text()
    resource_version: int = _big()
    generation: int = _big()
    created_at: str = _text()
    deleted_at: str | None = _text(nullable=True)
    labels: str = _text()
    meta: str = _text()
    spec: str | None = _text(nullable=True)
    status: str | None = _text(nullable=True)
    # Of an event, the name of what it is about: of these there are many, and those of one object
    # are asked for.
    about: str | None = _text(nullable=True)
    __table_args__ = (
        Index("object_by_name", "kind", "namespace", "name", unique=True),
        Index(
            "object_by_about",
            "about",
            "namespace",
            "name",
            sqlite_where=text("about IS NOT NULL"),
            postgresql_where=text("about IS NOT NULL"),
        ),
        Index(
            "object_event_by_age",
            "created_at",
            sqlite_where=text("about IS NOT NULL"),
            postgresql_where=text("about IS NOT NULL"),
        ),
    )


class ObjectLabel(SQLModel, table=True):
    __tablename__ = "object_label"
    uid: str = _text(key=True)
    key: str = _text(key=True)
    value: str = _text()
    kind: str = _text()
    namespace: str = _text()
    name: str = _text()
    __table_args__ = (Index("object_label_by_value", "kind", "namespace", "key", "value", "name"),)


class ObjectOwner(SQLModel, table=True):
    """ownerReferences by the owner's uid: what a deletion cascades to."""

    __tablename__ = "object_owner"
    uid: str = _text(key=True)
    owner_uid: str = _text(key=True)
    __table_args__ = (Index("object_owner_by_owner", "owner_uid"),)


class FleetSelector(SQLModel, table=True):
    """A fleet's matchLabels as rows, `total` of them, so that who owns which device is a join."""

    __tablename__ = "fleet_selector"
    namespace: str = _text(key=True)
    fleet: str = _text(key=True)
    key: str = _text(key=True)
    value: str = _text()
    total: int = _big()
    __table_args__ = (Index("fleet_selector_by_label", "namespace", "key", "value"),)


class FleetOverride(SQLModel, table=True):
    """What people ask of the applications of a fleet, so that who joins it is given it in SQL."""

    __tablename__ = "fleet_override"
    namespace: str = _text(key=True)
    fleet: str = _text(key=True)
    overrides: str = _text()


class DeviceRow(SQLModel, table=True):
    """The only kind of which there are hundreds of thousands.

    An index costs PostgreSQL an entry for each new version of a row, whether its columns moved or
    not; only where none of them moved in any index, and the page has room, it costs nothing. So
    there is none for the owner, who is known by the fleet, and half of each page is left empty.
    """

    __tablename__ = "device"
    uid: str = _text(key=True)
    namespace: str = _text()
    name: str = _text()
    resource_version: int = _big()
    generation: int = _big()
    created_at: str = _text()
    deleted_at: str | None = _text(nullable=True)
    labels: str = _text()
    meta: str = _text()
    alias: str | None = _text(nullable=True)
    # Who owns it. `candidates` lists the fleets when several match, and then nothing is rolled out.
    owner: str | None = _text(nullable=True)
    fleet: str = _text(default="")
    candidates: str | None = _text(nullable=True)
    # Since when several match, or do no more; unix seconds. None: there never were several.
    several_at: int | None = _big(nullable=True)
    # What it should be.
    inputs_version: int = _big(default=1)
    spec_digest: str = _text()
    # What its outside sources gave, if it has no fleet and so follows them itself.
    inputs_digest: str | None = _text(nullable=True)
    template_version: str | None = _text(nullable=True)
    rollout: str | None = _text(nullable=True)
    rollout_batch: int | None = _big(nullable=True)
    # Which of the rollout's retries it has had.
    rollout_retry: int = _big(default=0)
    bound_at: float | None = Field(default=None, sa_column=Column(Float, nullable=True))
    # 1: its fleet is to have another template version than it has, and its turn has not come.
    behind: int = _big(default=0)
    rendered_digest: str | None = _text(nullable=True)
    rendered_version: int = _big(default=0)
    rendered_template_version: str | None = _text(nullable=True)
    retry_generation: int = _big(default=0)
    render_needed: int = _big(default=0)
    render_error: str | None = _text(nullable=True)
    # The `mark` of what from outside it waits for, or failed for. See `wants`.
    waits_for: str | None = _text(nullable=True)
    spec_valid: str | None = _text(nullable=True)
    os_image: str = _text(default="")
    decommissioning: int = _big(default=0)
    # Whether it is left alone since the database was restored. See `pausing`.
    pause: int = _big(default=0)
    # What people ask of its applications, itself and as one of its fleet. See `overriding`.
    overrides: str | None = _text(nullable=True)
    fleet_overrides: str | None = _text(nullable=True)
    # What it said of itself, raw, and what of that is asked for.
    agent_status: str = _text()
    reported_version: int = _big(default=0)
    delivered_version: int = _big(default=0)
    reported_since_delivery: int = _big(default=0)
    failed_version: int = _big(default=0)
    failed_reason: str | None = _text(nullable=True)
    # What was rendered when it failed last, until that is seen to work.
    failed_digest: str | None = _text(nullable=True)
    # What the service concludes.
    conditions: str = _text()
    connected: int = _big(default=0)
    seen: int = _big(default=0)
    summary_status: str = _text()
    summary_info: str = _text(default="")
    updated_status: str = _text()
    updated_info: str = _text(default="")
    applications_status: str = _text()
    applications_info: str = _text(default="")
    lifecycle_status: str = _text()
    lifecycle_info: str = _text(default="")
    os_mode: str = _text(default="unknown")
    __table_args__ = (
        Index("device_by_name", "namespace", "name", unique=True),
        Index("device_by_fleet", "namespace", "fleet", "name"),
        Index("device_by_summary", "namespace", "summary_status", "name"),
        Index("device_by_updated", "namespace", "updated_status", "name"),
        Index("device_by_applications", "namespace", "applications_status", "name"),
        Index("device_by_lifecycle", "namespace", "lifecycle_status", "name"),
        Index(
            "device_by_alias",
            "namespace",
            "alias",
            "name",
            sqlite_where=text("alias IS NOT NULL"),
            postgresql_where=text("alias IS NOT NULL"),
        ),
        Index("device_by_os_mode", "namespace", "os_mode", "name"),
        Index("device_connected", "namespace", "connected", "name"),
        Index(
            "device_render_needed",
            "namespace",
            "fleet",
            "name",
            sqlite_where=text("render_needed = 1"),
            postgresql_where=text("render_needed = 1"),
        ),
        Index(
            "device_following",
            "namespace",
            "name",
            sqlite_where=text("inputs_digest IS NOT NULL"),
            postgresql_where=text("inputs_digest IS NOT NULL"),
        ),
    )


class FrozenValue(SQLModel, table=True):
    """What a template version takes from outside for some devices only. See `wants`."""

    __tablename__ = "frozen_value"
    key: str = _text(key=True)
    # The uid of the template version.
    version: str = _text()
    input: str = _text()
    # What is fetched: JSON, and of it what a commit is looked up by.
    reference: str = _text()
    revision_of: str = _text(default="")
    # What came, once and for all.
    manifest: str | None = _text(nullable=True)
    revision: str | None = _text(nullable=True)
    etag: str | None = _text(nullable=True)
    files: int = _big(default=0)
    updated_at: str | None = _text(nullable=True)
    # Until then: which telling of it devices know, and why it did not come.
    mark: str | None = _text(nullable=True)
    problem: str | None = _text(nullable=True)
    passing: int = _big(default=0)
    __table_args__ = (
        Index("frozen_value_by_version", "version", "key"),
        Index("frozen_value_by_mark", "mark", unique=True),
    )


class DeviceLabel(SQLModel, table=True):
    """`name` is here too, so that a page by label is read in order from one index."""

    __tablename__ = "device_label"
    uid: str = _text(key=True)
    key: str = _text(key=True)
    value: str = _text()
    namespace: str = _text()
    name: str = _text()
    __table_args__ = (Index("device_label_by_value", "namespace", "key", "value", "name", "uid"),)


class DevicePresence(SQLModel, table=True):
    """Heartbeats are not changes: they move no resourceVersion."""

    __tablename__ = "device_presence"
    uid: str = _text(key=True)
    last_seen: float = Field(default=0.0, sa_column=Column(Float, nullable=False))
    __table_args__ = (Index("device_presence_by_time", "last_seen"),)


class DeviceHistory(SQLModel, table=True):
    __tablename__ = "device_history"
    uid: str = _text(key=True)
    rendered_version: int = _big(key=True)
    spec_digest: str = _text()
    rendered_digest: str = _text()
    template_version: str | None = _text(nullable=True)
    from_at: int = _big()


class Counter(SQLModel, table=True):
    """Devices by fleet and state, moved by deltas in the transaction that changes devices."""

    __tablename__ = "counter"
    namespace: str = _text(key=True)
    fleet: str = _text(key=True)
    dimension: str = _text(key=True)
    state: str = _text(key=True)
    n: int = _big()


class Content(SQLModel, table=True):
    """Immutable documents and blobs under their digest."""

    __tablename__ = "content"
    digest: str = _text(key=True)
    body: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    touched_at: int = _big()
    # The key by which a secret is sealed; empty for what is plain.
    sealed_by: str = _text(default="")
    __table_args__ = (
        Index("content_by_age", "touched_at"),
        Index(
            "content_by_key",
            "sealed_by",
            "digest",
            sqlite_where=text("digest < 'hmac-sha256;'"),
            postgresql_where=text("digest < 'hmac-sha256;'"),
        ),
    )


class ContentRef(SQLModel, table=True):
    __tablename__ = "content_ref"
    parent: str = _text(key=True)
    child: str = _text(key=True)
    __table_args__ = (Index("content_ref_by_child", "child"),)


class Change(SQLModel, table=True):
    """What happened, in commit order, gapless. No bodies, but the last one of what was deleted.

    Labels and selectable fields are there, old and new, where they changed.
    """

    __tablename__ = "change"
    resource_version: int = _big(key=True)
    kind: str = _text()
    namespace: str = _text()
    name: str = _text()
    uid: str = _text()
    type: str = _text()
    old_labels: str | None = _text(nullable=True)
    new_labels: str | None = _text(nullable=True)
    old_fields: str | None = _text(nullable=True)
    new_fields: str | None = _text(nullable=True)
    body: str | None = _text(nullable=True)
    at: int = _big()
    __table_args__ = (Index("change_by_kind", "kind", "resource_version"),)


class EventRow(SQLModel, table=True):
    """Events have a sequence of their own; the same thing happening again raises the count."""

    __tablename__ = "event"
    uid: str = _text(key=True)
    version: int = _big()
    namespace: str = _text()
    name: str = _text()
    involved_kind: str = _text()
    involved_name: str = _text()
    involved_uid: str = _text()
    reason: str = _text()
    type: str = _text()
    dedup: str = _text()
    count: int = _big()
    last_at: int = _big()
    body: str = _text()
    __table_args__ = (
        Index("event_by_name", "namespace", "name", unique=True),
        Index("event_by_version", "version"),
        Index("event_by_involved", "namespace", "involved_kind", "involved_name"),
        Index("event_by_dedup", "namespace", "dedup"),
        Index("event_by_age", "last_at"),
    )


class Lease(SQLModel, table=True):
    """Who does what of which one must be active; renewed by its holder, stealable when expired."""

    __tablename__ = "lease"
    name: str = _text(key=True)
    holder: str = _text()
    expires_at: float = Field(default=0.0, sa_column=Column(Float, nullable=False))


class AuthorityRow(SQLModel, table=True):
    """A generation of the certificate authority, for the other processes. See `pki.rotation`."""

    __tablename__ = "authority"
    number: int = _big(key=True)
    fingerprint: str = _text()
    sealed: str = _text()
    trusted_until: str | None = _text(nullable=True)


class Audit(SQLModel, table=True):
    """Who did what, with a sequence of its own. `spec` is what auditors see; the rest is asked
    for."""

    __tablename__ = "audit"
    id: int = _big(key=True)
    at: int = _big()
    namespace: str = _text()
    user_name: str = _text()
    verb: str = _text()
    kind: str = _text()
    name: str = _text()
    spec: str = _text()
    __table_args__ = (
        Index("audit_by_namespace", "namespace", "id"),
        Index("audit_by_user", "user_name", "id"),
    )


METADATA = SQLModel.metadata


def table(model: type[SQLModel]) -> Table:
    """The Core table of a model."""
    found = METADATA.tables[str(model.__tablename__)]
    return found


META = table(StoreMeta)
ENCRYPTION_KEY = table(EncryptionKey)
COMMIT = table(CommitMark)
OBJECT = table(ObjectRow)
OBJECT_LABEL = table(ObjectLabel)
OBJECT_OWNER = table(ObjectOwner)
FLEET_SELECTOR = table(FleetSelector)
FLEET_OVERRIDE = table(FleetOverride)
DEVICE = table(DeviceRow)
FROZEN_VALUE = table(FrozenValue)
DEVICE_LABEL = table(DeviceLabel)
PRESENCE = table(DevicePresence)
HISTORY = table(DeviceHistory)
COUNTER = table(Counter)
CONTENT = table(Content)
CONTENT_REF = table(ContentRef)
CHANGE = table(Change)
EVENT = table(EventRow)
LEASE = table(Lease)
AUTHORITY = table(AuthorityRow)
AUDIT = table(Audit)

# Tables of one connection, in which set changes gather the rows that they affect: name → columns.
SCRATCH = {
    "bound": """n BIGINT, uid TEXT, namespace TEXT, name TEXT, labels TEXT,
    owner TEXT, alias TEXT, old_owner TEXT, fleet TEXT, old_fleet TEXT, candidates TEXT,
    old_candidates TEXT, summary_status TEXT, updated_status TEXT, old_updated_status TEXT,
    updated_info TEXT,
    applications_status TEXT, lifecycle_status TEXT, os_mode TEXT, connected BIGINT,
    render_needed BIGINT, old_render_needed BIGINT, rendered_version BIGINT, overrides TEXT,
    rerendered BIGINT, retried BIGINT, respecified BIGINT""",
    "given": """uid TEXT PRIMARY KEY, inputs_version BIGINT, spec_digest TEXT, rendered_digest TEXT,
    os_image TEXT, render_error TEXT, waits_for TEXT""",
}
