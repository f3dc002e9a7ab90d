"""AuthProviders that may say who is whose: those that a super administrator wrote.

Inside one organisation its administrators may add identity providers for it. What reaches further,
into other organisations or to `flightctl-admin`, takes a super administrator, whose writing leaves
a mark that nobody else can make; and what bears the mark nobody else may change, or the mark would
vouch for somebody else's issuer. It is read where tokens are (auth/claims.py). Contract 6.7.
"""

from __future__ import annotations

from apiserver import errors
from apiserver.auth.claims import VOUCHED
from apiserver.auth.identity import Caller
from resources.authprovider import STATIC
from resources.errors import FORBIDDEN, FieldError, Invalid
from resources.kind import Json, Kind

_KIND = "AuthProvider"


def mark(caller: Caller, kind: Kind, old: Json | None, new: Json) -> Json:
    """`new` with the mark as it has to be. Raises Forbidden, Unprocessable."""
    if kind.kind != _KIND:
        return new
    has_mark = old is not None and is_marked(old)
    if old is None or old["spec"] != new["spec"]:
        if has_mark and not caller.is_super_admin:
            raise errors.Forbidden(
                "a super administrator wrote it, and only one may change it",
                kind=kind,
                name=new["metadata"]["name"],
            )
        has_mark = caller.is_super_admin
        if not has_mark:
            _check_reach(kind, new)
    metadata = dict(new["metadata"])
    annotations = dict(metadata.pop("annotations", None) or {})
    # Whoever sent it: it is the server's to say.
    annotations.pop(VOUCHED, None)
    if has_mark:
        annotations[VOUCHED] = "true"
    if annotations:
        metadata["annotations"] = annotations
    return new | {"metadata": metadata}


def is_marked(document: Json) -> bool:
    return (document["metadata"].get("annotations") or {}).get(VOUCHED) == "true"


def _check_reach(kind: Kind, document: Json) -> None:
    spec, name = document["spec"], document["metadata"]["name"]
    assignment = spec["organizationAssignment"]
    problems = []
    if assignment["type"] != STATIC:
        detail = f"{assignment['type']} takes a super administrator; write {STATIC}"
        problems.append(FieldError("spec.organizationAssignment.type", FORBIDDEN, detail))
    elif assignment["organizationName"] != document["metadata"]["namespace"]:
        detail = "another organization than this one takes a super administrator"
        problems.append(
            FieldError("spec.organizationAssignment.organizationName", FORBIDDEN, detail)
        )
    if "flightctl-admin" in (spec["roleAssignment"].get("roles") or ()):
        detail = "flightctl-admin takes a super administrator; write flightctl-org-admin"
        problems.append(FieldError("spec.roleAssignment.roles", FORBIDDEN, detail))
    if problems:
        raise errors.unprocessable(kind, name, Invalid(problems))
