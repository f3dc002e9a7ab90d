"""What a document says it is, compared with where it was sent; before anything else is looked at.

A document of another kind or for another namespace is a mistake of the address, not of the
document: 400, as Kubernetes has it, and never 422 with a list of fields that would not fit anyway.
"""

from __future__ import annotations

from apiserver.errors import BadRequest, unprocessable
from resources.errors import TYPE_INVALID, invalid
from resources.kind import Json, Kind


def identified(kind: Kind, document: Json, namespace: str, name: str = "") -> Json:
    """The document, whose apiVersion and kind are those of the path, and whose metadata is an
    object. Only Kubernetes' own kinds may leave the former out.

    Raises BadRequest, Unprocessable.
    """
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        said = document.get(field)
        if said in (None, "") and _is_kubernetes(kind):
            # Typed clients know where they send it, and kopf's events leave it out too.
            document = document | {field: expected}
            continue
        if said in (None, ""):
            raise BadRequest(f"{field} is missing: write {field}: {expected}")
        if said != expected:
            raise BadRequest(
                f'the {field} in the data ("{said}") does not match the expected {field} '
                f'("{expected}")'
            )
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        problem = invalid("metadata", "must be an object with a name", TYPE_INVALID)
        raise unprocessable(kind, name, problem)
    _same("name", metadata.get("name"), name)
    _same("namespace", metadata.get("namespace"), namespace)
    return document


def _is_kubernetes(kind: Kind) -> bool:
    return not kind.group or kind.group.endswith(".k8s.io")


def _same(field: str, said: object, expected: str) -> None:
    if said not in (None, "") and expected and said != expected:
        raise BadRequest(
            f'the {field} of the object ("{said}") does not match the {field} on the URL '
            f'("{expected}")'
        )
