"""What Kubernetes clients send as protobuf: the built-in kinds that are served here. Pure.

Typed Go clients send their bodies so from 1.32 on, and give up on 415. Kinds of ours never come
so: there is no protobuf of them. Answers are JSON, which the same clients take. The numbers are
those of Kubernetes' `generated.proto` files, which never change.
"""

from __future__ import annotations

from collections.abc import Mapping

from apiserver.wire import protobuf
from apiserver.wire.protobuf import Malformed, Message
from resources.kind import Json

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

_TYPE: Message = {1: ("apiVersion", "text"), 2: ("kind", "text")}
_OWNER: Message = {
    1: ("kind", "text"), 3: ("name", "text"), 4: ("uid", "text"), 5: ("apiVersion", "text"),
    6: ("controller", "bool"), 7: ("blockOwnerDeletion", "bool"),
}  # fmt: skip
_MANAGED: Message = {
    1: ("manager", "text"), 2: ("operation", "text"), 3: ("apiVersion", "text"),
    4: ("time", "time"), 6: ("fieldsType", "text"), 7: ("fieldsV1", "json"),
    8: ("subresource", "text"),
}  # fmt: skip
_META: Message = {
    1: ("name", "text"), 2: ("generateName", "text"), 3: ("namespace", "text"),
    4: ("selfLink", "text"), 5: ("uid", "text"), 6: ("resourceVersion", "text"),
    7: ("generation", "int"), 8: ("creationTimestamp", "time"), 9: ("deletionTimestamp", "time"),
    10: ("deletionGracePeriodSeconds", "int"), 11: ("labels", "map"), 12: ("annotations", "map"),
    13: ("ownerReferences", [_OWNER]), 14: ("finalizers", ["text"]),
    17: ("managedFields", [_MANAGED]),
}  # fmt: skip
_METADATA = ("metadata", _META)

_REFERENCE: Message = {
    1: ("kind", "text"), 2: ("namespace", "text"), 3: ("name", "text"), 4: ("uid", "text"),
    5: ("apiVersion", "text"), 6: ("resourceVersion", "text"), 7: ("fieldPath", "text"),
}  # fmt: skip
_SOURCE: Message = {1: ("component", "text"), 2: ("host", "text")}
_SERIES: Message = {1: ("count", "int"), 2: ("lastObservedTime", "microtime")}

NAMESPACE: Message = {
    1: _METADATA,
    2: ("spec", {1: ("finalizers", ["text"])}),
    3: ("status", {1: ("phase", "text")}),
}
EVENT: Message = {
    1: _METADATA, 2: ("involvedObject", _REFERENCE), 3: ("reason", "text"), 4: ("message", "text"),
    5: ("source", _SOURCE), 6: ("firstTimestamp", "time"), 7: ("lastTimestamp", "time"),
    8: ("count", "int"), 9: ("type", "text"), 10: ("eventTime", "microtime"),
    11: ("series", _SERIES), 12: ("action", "text"), 13: ("related", _REFERENCE),
    14: ("reportingComponent", "text"), 15: ("reportingInstance", "text"),
}  # fmt: skip
NEWER_EVENT: Message = {
    1: _METADATA, 2: ("eventTime", "microtime"), 3: ("series", _SERIES),
    4: ("reportingController", "text"), 5: ("reportingInstance", "text"), 6: ("action", "text"),
    7: ("reason", "text"), 8: ("regarding", _REFERENCE), 9: ("related", _REFERENCE),
    10: ("note", "text"), 11: ("type", "text"), 12: ("deprecatedSource", _SOURCE),
    13: ("deprecatedFirstTimestamp", "time"), 14: ("deprecatedLastTimestamp", "time"),
    15: ("deprecatedCount", "int"),
}  # fmt: skip
LEASE: Message = {
    1: _METADATA,
    2: ("spec", {
        1: ("holderIdentity", "text"), 2: ("leaseDurationSeconds", "int"),
        3: ("acquireTime", "microtime"), 4: ("renewTime", "microtime"),
        5: ("leaseTransitions", "int"), 6: ("strategy", "text"), 7: ("preferredHolder", "text"),
    }),
}  # fmt: skip

_RESOURCE: Message = {
    1: ("namespace", "text"), 2: ("verb", "text"), 3: ("group", "text"), 4: ("version", "text"),
    5: ("resource", "text"), 6: ("subresource", "text"), 7: ("name", "text"),
}  # fmt: skip
_NON_RESOURCE: Message = {1: ("path", "text"), 2: ("verb", "text")}
_ACCESS: Message = {
    1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _NON_RESOURCE),
}  # fmt: skip
ACCESS_REVIEW: Message = {1: _METADATA, 2: ("spec", _ACCESS)}
ACCESS_REVIEW_OF_OTHERS: Message = {
    1: _METADATA,
    2: ("spec", {**_ACCESS, 3: ("user", "text"), 4: ("groups", ["text"]), 6: ("uid", "text")}),
}
RULES_REVIEW: Message = {1: _METADATA, 2: ("spec", {1: ("namespace", "text")})}
SELF_REVIEW: Message = {1: _METADATA}
DELETE_OPTIONS: Message = {
    1: ("gracePeriodSeconds", "int"),
    2: ("preconditions", {1: ("uid", "text"), 2: ("resourceVersion", "text")}),
    3: ("orphanDependents", "bool"), 4: ("propagationPolicy", "text"), 5: ("dryRun", ["text"]),
}  # fmt: skip

_KINDS: Mapping[tuple[str, str], Message] = {
    ("v1", "Namespace"): NAMESPACE,
    ("v1", "Event"): EVENT,
    ("events.k8s.io/v1", "Event"): NEWER_EVENT,
    ("coordination.k8s.io/v1", "Lease"): LEASE,
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): ACCESS_REVIEW,
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): RULES_REVIEW,
    ("authorization.k8s.io/v1", "SubjectAccessReview"): ACCESS_REVIEW_OF_OTHERS,
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview"): ACCESS_REVIEW_OF_OTHERS,
    ("authentication.k8s.io/v1", "SelfSubjectReview"): SELF_REVIEW,
    ("authentication.k8s.io/v1beta1", "SelfSubjectReview"): SELF_REVIEW,
}
_UNKNOWN: Message = {1: ("typeMeta", _TYPE)}


def decode(raw: bytes) -> Json | None:
    """The object in a body, whole with apiVersion and kind; None for a kind that is not read so.
    Raises Malformed."""
    if not raw.startswith(_MAGIC):
        raise Malformed("it does not begin with Kubernetes' envelope")
    inner = raw[len(_MAGIC) :]
    outer = protobuf.decode(_UNKNOWN, inner).get("typeMeta", {})
    version, kind = outer.get("apiVersion", ""), outer.get("kind", "")
    # Every group has its own name for the same options.
    message = DELETE_OPTIONS if kind == "DeleteOptions" else _KINDS.get((version, kind))
    if message is None:
        return None
    body = protobuf.decode({2: ("raw", message)}, inner).get("raw", {})
    return {"apiVersion": version, "kind": kind, **body}
