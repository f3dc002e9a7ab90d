"""The mark on AuthProviders: who makes it, and that nobody else can."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver import vouching
from apiserver.auth.claims import VOUCHED
from apiserver.auth.identity import NOBODY, ORG_ADMIN, Caller
from apiserver.errors import Forbidden, Unprocessable
from resources.kind import Json
from resources.registry import AUTH_PROVIDER, FLEET

ROOT = Caller("root", role="admin")
BOB = Caller("bob", role=NOBODY, further={"acme": frozenset([ORG_ADMIN])})
OWN: Json = {"type": "static", "organizationName": "acme"}
FORGED = {VOUCHED: "true"}


def provider(annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    whole = {
        "issuer": "https://id.example.com",
        "organizationAssignment": OWN,
        "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
    }
    metadata: Json = {"name": "id", "namespace": "acme"}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": whole | spec}


def annotations(document: Json) -> Any:
    return document["metadata"].get("annotations")


@pytest.mark.parametrize("sent", [None, {}, FORGED, FORGED | {"note": "x"}])
def test_what_somebody_writes_of_the_mark_is_not_taken(sent: dict[str, str] | None) -> None:
    made = vouching.mark(BOB, AUTH_PROVIDER, None, provider(sent))
    assert VOUCHED not in (annotations(made) or {})
    again = vouching.mark(BOB, AUTH_PROVIDER, made, provider(FORGED, issuer="https://other"))
    assert VOUCHED not in (annotations(again) or {})
    assert annotations(vouching.mark(ROOT, AUTH_PROVIDER, None, provider(sent)))[VOUCHED] == "true"


def test_the_mark_stays_while_the_spec_does_and_goes_by_who_changes_it() -> None:
    marked = vouching.mark(ROOT, AUTH_PROVIDER, None, provider())
    assert annotations(vouching.mark(BOB, AUTH_PROVIDER, marked, provider({"note": "x"}))) == {
        VOUCHED: "true", "note": "x",
    }  # fmt: skip
    with pytest.raises(Forbidden, match="only one may change it"):
        vouching.mark(BOB, AUTH_PROVIDER, marked, provider(issuer="https://evil.example.com"))
    # Whoever of them looks at what is another's vouches for nothing.
    theirs = vouching.mark(BOB, AUTH_PROVIDER, None, provider())
    assert not annotations(vouching.mark(ROOT, AUTH_PROVIDER, theirs, provider()))
    changed = vouching.mark(ROOT, AUTH_PROVIDER, theirs, provider(issuer="https://new.example.com"))
    assert annotations(changed) == FORGED


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"organizationAssignment": {"type": "dynamic", "claimPath": ["o"]}}, "assignment.type"),
        ({"organizationAssignment": {"type": "perUser"}}, "assignment.type"),
        ({"organizationAssignment": OWN | {"organizationName": "other"}}, "organizationName"),
        ({"roleAssignment": {"type": "static", "roles": ["flightctl-admin"]}}, "roles"),
    ],
)
def test_what_reaches_further_is_refused_by_field(spec: Json, field: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        vouching.mark(BOB, AUTH_PROVIDER, None, provider(**spec))
    assert [cause.path.lower().endswith(field.lower()) for cause in refused.value.causes] == [True]
    assert vouching.mark(ROOT, AUTH_PROVIDER, None, provider(**spec))


def test_of_other_kinds_nothing_is_touched() -> None:
    document = provider(FORGED)
    assert vouching.mark(BOB, FLEET, None, document) is document
