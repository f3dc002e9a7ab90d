"""What standalone mode serves of Kubernetes' own kinds: namespaces, events, leases, nothing else.

kubectl and kopf need the first two, and who elects a leader the third; Secrets, ConfigMaps and pods
are refused by not being here. Under an aggregator the cluster has its own, and these kinds are left
out of the catalogue.
"""

from __future__ import annotations

from pydantic import Field

from resources.kind import Column, Kind
from resources.meta import Document, Int32, Model, ObjectMeta, Timestamp

CORE_VERSION = "v1"
_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since it was created.")


class NamespaceSpec(Model):
    finalizers: list[str] | None = Field(
        None,
        description="Accepted and ignored; namespaces here end at once.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class NamespaceStatus(Model):
    phase: str | None = Field(None, description="Active, or Terminating.")


class Namespace(Document):
    """Where objects live; each namespace is one organization."""

    spec: NamespaceSpec | None = Field(None, description="Nothing that matters here.")
    status: NamespaceStatus | None = Field(None, description="Whether it is in use.")


class ObjectReference(Model):
    api_version: str | None = Field(None, description="Group and version of the object.")
    kind: str | None = Field(None, description="Kind of the object.")
    namespace: str | None = Field(None, description="Namespace of the object.")
    name: str | None = Field(None, description="Name of the object.")
    uid: str | None = Field(None, description="UID of the object.")
    resource_version: str | None = Field(None, description="Version of the object, then.")
    field_path: str | None = Field(None, description="Part of the object that it is about.")


class EventSource(Model):
    component: str | None = Field(None, description="Program that says so.")
    host: str | None = Field(None, description="Machine on which it runs.")


class EventSeries(Model):
    count: Int32 | None = Field(None, description="How often it happened.")
    last_observed_time: str | None = Field(None, description="When it happened last.")


class EventBody(Model):
    """What an event says, beside its metadata."""

    involved_object: ObjectReference = Field(description="What it is about.")
    reason: str | None = Field(None, description="What happened, as one CamelCase word.")
    message: str | None = Field(None, description="What happened, for people.", max_length=1024)
    type: str | None = Field(None, description="Normal or Warning.")
    count: Int32 | None = Field(None, description="How often it happened.")
    first_timestamp: str | None = Field(None, description="When it happened first.")
    last_timestamp: str | None = Field(None, description="When it happened last.")
    event_time: str | None = Field(None, description="When it happened, to the microsecond.")
    source: EventSource | None = Field(None, description="Who says so.")
    series: EventSeries | None = Field(None, description="Repetitions, in the newer form.")
    action: str | None = Field(None, description="What was done about the object.")
    related: ObjectReference | None = Field(None, description="Another object in the story.")
    reporting_component: str | None = Field(None, description="Controller that says so.")
    reporting_instance: str | None = Field(None, description="Its instance.")


class Event(EventBody):
    """Something that happened to an object, told for people."""

    api_version: str = Field(description="Group and version of the schema.")
    kind: str = Field(description="Name of the kind.")
    metadata: ObjectMeta = Field(description="Names, labels and bookkeeping of the object.")


class NewerEvent(Model):
    """An event in the words of events.k8s.io."""

    api_version: str = Field(description="Group and version of the schema.")
    kind: str = Field(description="Name of the kind.")
    metadata: ObjectMeta = Field(description="Names, labels and bookkeeping of the object.")
    event_time: str | None = Field(None, description="When it happened, to the microsecond.")
    series: EventSeries | None = Field(None, description="Repetitions.")
    reporting_controller: str | None = Field(None, description="Controller that says so.")
    reporting_instance: str | None = Field(None, description="Its instance.")
    action: str | None = Field(None, description="What was done about the object.")
    reason: str | None = Field(None, description="What happened, as one CamelCase word.")
    regarding: ObjectReference = Field(description="What it is about.")
    related: ObjectReference | None = Field(None, description="Another object in the story.")
    note: str | None = Field(None, description="What happened, for people.", max_length=1024)
    type: str | None = Field(None, description="Normal or Warning.")
    deprecated_source: EventSource | None = Field(None, description="Who says so, of core/v1.")
    deprecated_first_timestamp: str | None = Field(None, description="When it happened first.")
    deprecated_last_timestamp: str | None = Field(None, description="When it happened last.")
    deprecated_count: Int32 | None = Field(None, description="How often it happened.")


class LeaseSpec(Model):
    holder_identity: str | None = Field(None, description="Who has it.")
    lease_duration_seconds: Int32 | None = Field(
        None, description="How long after the last renewal others wait before they take it."
    )
    acquire_time: Timestamp | None = Field(None, description="When its holder took it.")
    renew_time: Timestamp | None = Field(None, description="When its holder last renewed it.")
    lease_transitions: Int32 | None = Field(None, description="How often it changed hands.")
    strategy: str | None = Field(None, description="How a coordinated election picks its holder.")
    preferred_holder: str | None = Field(None, description="Who should have it instead.")


class Lease(Document):
    """Something that one of many may have at a time, such as leadership."""

    spec: LeaseSpec | None = Field(None, description="Who has it, and until when.")


NAMESPACE = Kind(
    group="",
    version=CORE_VERSION,
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    model=Namespace,
    description="Where objects live; each namespace is one organization.",
    namespaced=False,
    short_names=("ns",),
    columns=(Column("Status", ".status.phase", description="Active or Terminating."), _AGE),
)

EVENT = Kind(
    group="",
    version=CORE_VERSION,
    kind="Event",
    plural="events",
    singular="event",
    model=Event,
    description="Something that happened to an object, told for people.",
    short_names=("ev",),
    columns=(
        Column("Last Seen", ".lastTimestamp", "date", "Time since it happened last."),
        Column("Type", ".type", description="Normal or Warning."),
        Column("Reason", ".reason", description="What happened."),
        Column("Kind", ".involvedObject.kind", description="Kind of the object."),
        Column("Object", ".involvedObject.name", description="What it is about."),
        Column("Message", ".message", description="What happened, for people."),
        Column("Count", ".count", "integer", "How often it happened.", priority=1),
        Column("Source", ".source.component", description="Who says so.", priority=1),
    ),
    selectable=(
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
)

NEWER_EVENT = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    model=NewerEvent,
    description="Something that happened to an object, told for people.",
    short_names=("ev",),
    columns=(
        Column("Last Seen", ".deprecatedLastTimestamp", "date", "Time since it happened last."),
        Column("Type", ".type", description="Normal or Warning."),
        Column("Reason", ".reason", description="What happened."),
        Column("Object", ".regarding.name", description="What it is about."),
        Column("Message", ".note", description="What happened, for people."),
    ),
    selectable=(
        *(f"regarding.{path}" for path in ("kind", "name", "namespace", "uid", "apiVersion")),
        "reason",
        "reportingController",
        "type",
    ),
)

LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    model=Lease,
    description="Something that one of many may have at a time, such as leadership.",
    columns=(Column("Holder", ".spec.holderIdentity", description="Who has it."), _AGE),
)

KINDS: tuple[Kind, ...] = (NAMESPACE, EVENT, NEWER_EVENT, LEASE)
