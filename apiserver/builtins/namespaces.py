"""Namespaces as a view of organisations: one row, two names, so the pair can never disagree.

An organisation *is* a namespace; creating, labelling or deleting the one is doing it to the other,
with the same uid and the same resourceVersion. The organisation's own spec is kept by writes that
come through here, since a Namespace has no place for it.
"""

from __future__ import annotations

from apiserver.builtins import view
from apiserver.builtins.kinds import NAMESPACE
from apiserver.builtins.view import Turning
from resources.kind import Json
from resources.registry import ORGANIZATION


def to_namespace(organization: Json) -> Json:
    """The Namespace that an Organization is."""
    metadata = {k: v for k, v in organization["metadata"].items() if k != "owner"}
    if "managedFields" in metadata:
        metadata["managedFields"] = view.owners_without(metadata["managedFields"], "spec")
    phase = "Terminating" if metadata.get("deletionTimestamp") else "Active"
    return {
        "apiVersion": NAMESPACE.api_version,
        "kind": NAMESPACE.kind,
        "metadata": metadata,
        "spec": {},
        "status": {"phase": phase},
    }


def to_organization(namespace: Json, was: Json | None) -> Json:
    """The Organization behind a Namespace that is written; `was` is the stored one."""
    document: Json = {
        "apiVersion": ORGANIZATION.api_version,
        "kind": ORGANIZATION.kind,
        "metadata": namespace.get("metadata"),
    }
    if was is None:
        metadata = namespace.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        document["spec"] = {"displayName": name} if isinstance(name, str) else {}
    elif "spec" in was:
        document["spec"] = was["spec"]
    return document


TURNING = Turning(
    shown=NAMESPACE,
    stored=ORGANIZATION,
    show=to_namespace,
    store=to_organization,
    # Name, the one field that both are selected by, is called the same.
    select=lambda fields: fields,
)
