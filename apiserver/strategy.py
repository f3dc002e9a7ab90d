"""What each verb may change, whoever asks: defaults, generation, immutability. Pure.

The order and the rules mirror Kubernetes' `rest.BeforeCreate` and `rest.BeforeUpdate`
(kubernetes-protocol §5.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from apiserver import errors
from resources.copying import copied
from resources.errors import FORBIDDEN, REQUIRED, FieldError, Invalid, invalid
from resources.kind import Json, Kind
from resources.objectpath import get_path, set_default

# Without vowels and look-alikes, so that no word and no doubt arises.
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
GENERATED_BASE_MAX = 58
SERVER_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "owner",
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_MAX = 253


def for_create(
    kind: Kind, namespace: str, document: Json, *, now: str, uid: str, suffix: Callable[[], str]
) -> Json:
    """The document as it will be stored. Raises StatusError."""
    document = _shaped(kind, namespace, document)
    metadata = document["metadata"]
    if metadata.get("resourceVersion"):
        raise errors.BadRequest("resourceVersion should not be set on objects to be created")
    base = metadata.pop("generateName", "")
    if not metadata.get("name"):
        if not base:
            problem = FieldError("metadata.name", REQUIRED, "name or generateName is required")
            raise errors.unprocessable(kind, "", Invalid([problem]))
        metadata["name"] = base[:GENERATED_BASE_MAX] + suffix()
    _check_name(kind, metadata["name"])
    for key in SERVER_METADATA:
        metadata.pop(key, None)
    metadata |= {"uid": uid, "generation": 1, "creationTimestamp": now}
    if kind.has_status and not kind.internal:
        document.pop("status", None)
    return document


def for_update(kind: Kind, namespace: str, old: Json, new: Json, *, subresource: str = "") -> Json:
    """`new` with what the verb may not change taken from `old`. Raises StatusError."""
    new = _shaped(kind, namespace, new)
    metadata, was = new["metadata"], old["metadata"]
    _check_preconditions(kind, was, metadata)
    for key in SERVER_METADATA:
        metadata.pop(key, None)
        if key in was:
            metadata[key] = was[key]
    metadata["name"] = was["name"]
    if subresource:
        # A subresource changes its own part and nothing else.
        merged = copied(old)
        if "status" in new:
            merged["status"] = new["status"]
        return merged
    if kind.has_status and not kind.internal:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    _check_finalizers(kind, was, metadata)
    _check_immutable(kind, old, new)
    if new.get("spec") != old.get("spec"):
        metadata["generation"] = was.get("generation", 1) + 1
    return new


def _shaped(kind: Kind, namespace: str, document: Json) -> Json:
    if not isinstance(document.get("metadata"), dict):
        problem = invalid("metadata", "an object with a name is required", REQUIRED)
        raise errors.unprocessable(kind, "", problem)
    document = copied(document)
    said_kind, said_version = document.get("kind"), document.get("apiVersion")
    if said_kind not in (None, "", kind.kind):
        raise errors.BadRequest(f'the document is a "{said_kind}", this is about {kind.kind}')
    if said_version not in (None, "", kind.api_version, kind.version):
        raise errors.BadRequest(
            f'apiVersion "{said_version}" is not served here; use {kind.api_version}'
        )
    document["apiVersion"], document["kind"] = kind.api_version, kind.kind
    for path, value in kind.defaults.items():
        set_default(document, path, value)
    metadata = document["metadata"]
    said = metadata.get("namespace") or ""
    if kind.namespaced:
        if said and said != namespace:
            raise errors.BadRequest(
                f'the namespace of the document ("{said}") is not that of the request '
                f'("{namespace}")'
            )
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    return document


def _check_name(kind: Kind, name: object) -> None:
    if not isinstance(name, str) or len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        rule = "lower-case letters, digits, '-' and '.', 253 at most, ends alphanumeric"
        raise errors.unprocessable(kind, str(name), invalid("metadata.name", f'"{name}": {rule}'))


def _check_preconditions(kind: Kind, was: Json, said: Json) -> None:
    if said.get("name") not in (None, "", was["name"]):
        raise errors.BadRequest(
            f'the name of the document ("{said["name"]}") is not that of the request '
            f'("{was["name"]}")'
        )
    version = said.get("resourceVersion")
    if version and str(version) != was["resourceVersion"]:
        raise errors.conflict(
            kind,
            was["name"],
            "the object has been modified; please apply your changes to the latest version "
            "and try again",
        )
    if said.get("uid") not in (None, "", was["uid"]):
        why = f"Precondition failed: UID in precondition: {said['uid']}, UID in object meta: "
        raise errors.conflict(kind, was["name"], why + str(was["uid"]))


def _check_finalizers(kind: Kind, was: Json, metadata: Json) -> None:
    added = set(metadata.get("finalizers") or ()) - set(was.get("finalizers") or ())
    if was.get("deletionTimestamp") and added:
        problem = FieldError(
            "metadata.finalizers",
            FORBIDDEN,
            "no new finalizers can be added while the object is being deleted",
        )
        raise errors.unprocessable(kind, was["name"], Invalid([problem]))


def _check_immutable(kind: Kind, old: Json, new: Json) -> None:
    moved = [path for path in kind.immutable if get_path(old, path) != get_path(new, path)]
    if moved:
        problems = [FieldError(path, FORBIDDEN, "this field is immutable") for path in moved]
        raise errors.unprocessable(kind, old["metadata"]["name"], Invalid(problems))
