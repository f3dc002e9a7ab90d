"""Who the users of identity providers are here: names, organisations, roles."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.auth import claims, roles
from apiserver.auth.claims import Provider
from apiserver.auth.identity import EVERYWHERE
from apiserver.errors import Unauthorized

NAMESPACES = {"acme": "acme", "Acme Inc.": "acme-inc", "default": "default", "user-org-ann": "ann"}
DYNAMIC: dict[str, Any] = {"type": "dynamic", "claimPath": ["orgs"]}
ROLES: dict[str, Any] = {"type": "dynamic", "claimPath": ["roles"]}


def provider(
    organizations: dict[str, Any] = DYNAMIC,
    given_roles: dict[str, Any] = ROLES,
    *,
    is_vouched: bool = True,
    home: str = "",
    **spec: Any,
) -> Provider:
    whole = {
        "providerType": "oidc",
        "issuer": "https://id.example.com",
        "clientId": "homeport",
        "organizationAssignment": organizations,
        "roleAssignment": given_roles,
    }
    return Provider("id", home, whole | spec, is_vouched)


def held(asked: Provider, **said: Any) -> dict[str, set[str]]:
    caller = claims.caller_of(asked, {"preferred_username": "ann"} | said, NAMESPACES)
    assert caller.name == "ann"
    return {place: set(names) for place, names in caller.further.items()}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["flightctl-viewer"], {"acme": {"viewer"}, "acme-inc": {"viewer"}}),
        ("flightctl-viewer", {"acme": {"viewer"}, "acme-inc": {"viewer"}}),
        (["acme:flightctl-operator"], {"acme": {"operator"}}),
        (["Acme Inc.:flightctl-operator"], {"acme-inc": {"operator"}}),
        (["*:flightctl-installer"], {"acme": {"installer"}, "acme-inc": {"installer"}}),
        (
            ["flightctl-viewer", "acme:flightctl-operator"],
            {"acme": {"viewer", "operator"}, "acme-inc": {"viewer"}},
        ),
        (["flightctl-admin"], {EVERYWHERE: {"admin"}}),
        (["acme:flightctl-admin"], {"acme": {"org-admin"}}),
        (["*:flightctl-admin"], {"acme": {"org-admin"}, "acme-inc": {"org-admin"}}),
        # Not theirs, not ours, not a role.
        (["default:flightctl-operator"], {}),
        (["elsewhere:flightctl-operator"], {}),
        (["admin", "viewer", "acme:admin", "system:masters", "", ":", 3, None], {}),
        ({"flightctl-admin": True}, {}),
        (None, {}),
    ],
)
def test_roles_by_claim(said: Any, expected: dict[str, set[str]]) -> None:
    assert held(provider(), orgs=["acme", "Acme Inc."], roles=said) == expected


@pytest.mark.parametrize(
    ("assignment", "orgs", "expected"),
    [
        ({"type": "static", "organizationName": "acme"}, None, {"acme"}),
        ({"type": "static", "organizationName": "nowhere"}, None, set()),
        ({"type": "perUser"}, None, {"ann"}),
        ({"type": "perUser", "organizationNamePrefix": ""}, None, set()),
        (DYNAMIC, "acme", {"acme"}),
        (DYNAMIC, ["acme", "default", "unheard of", 4], {"acme", "default"}),
        # Never made to fit.
        (DYNAMIC, ["ACME", "acme ", "acme-inc"], set()),
        (
            DYNAMIC | {"organizationNamePrefix": "Acme ", "organizationNameSuffix": "."},
            ["Inc"],
            {"acme-inc"},
        ),
    ],
)
def test_organizations(assignment: dict[str, Any], orgs: Any, expected: set[str]) -> None:
    viewers = {"type": "static", "roles": ["flightctl-viewer"]}
    assert set(held(provider(assignment, viewers), orgs=orgs)) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("acme-inc", True), ("Acme Inc.", True), ("acme", False)]
)
def test_who_is_not_vouched_for_calls_the_own_namespace_by_either_name(
    name: str, expected: bool
) -> None:
    asked = provider(
        {"type": "static", "organizationName": name},
        {"type": "static", "roles": ["flightctl-viewer"]},
        is_vouched=False,
        home="acme-inc",
    )
    assert held(asked) == ({"acme-inc": {"viewer"}} if expected else {})


def test_names_may_stand_deep_in_the_claims() -> None:
    asked = provider(usernameClaim=["person", "login"])
    caller = claims.caller_of(asked, {"person": {"login": "ann"}}, {})
    assert caller.name == "ann"
    for said in ({}, {"person": "ann"}, {"person": {"login": ""}}, {"person": {"login": 3}}):
        with pytest.raises(Unauthorized, match=r'"person\.login"'):
            claims.caller_of(asked, said, {})


words = st.sampled_from(
    ["flightctl-admin", "flightctl-org-admin", "flightctl-operator", "flightctl-viewer", "admin"]
)
places = st.sampled_from(["", "*:", "acme:", "default:", "Acme Inc.:", "nowhere:"])
organization_names = st.lists(st.sampled_from([*NAMESPACES, "nowhere", "", "*"]))


@given(organization_names, st.lists(st.tuples(places, words).map("".join)))
def test_nobody_vouched_for_reaches_out_of_the_own_namespace(
    orgs: list[str], said: list[str]
) -> None:
    asked = provider(is_vouched=False, home="acme")
    for namespace, names in held(asked, orgs=orgs, roles=said).items():
        assert namespace == "acme"
        assert "admin" not in names


@given(organization_names, st.lists(st.tuples(places, words).map("".join)))
def test_who_is_no_admin_of_all_has_roles_in_own_organizations_only(
    orgs: list[str], said: list[str]
) -> None:
    caller = claims.caller_of(
        provider(), {"preferred_username": "ann", "orgs": orgs, "roles": said}, NAMESPACES
    )
    theirs = {NAMESPACES[name] for name in orgs if name in NAMESPACES}
    if caller.is_super_admin:
        assert "flightctl-admin" in said
        return
    assert set(caller.further) <= theirs
    for namespace in set(NAMESPACES.values()) - theirs:
        assert not roles.permits(caller, "get", "devices", "", namespace)
    assert not roles.permits(caller, "list", "devices")


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ("https://ID.example.com/realms/A/", "https://id.example.com/realms/A", True),
        ("HTTPS://id.example.com", "https://id.example.com/", True),
        ("https://id.example.com/realms/A", "https://id.example.com/realms/a", False),
        ("https://id.example.com", "http://id.example.com", False),
    ],
)
def test_issuers_are_compared_as_the_contract_says(one: str, other: str, are_equal: bool) -> None:
    assert (claims.normalised(one) == claims.normalised(other)) is are_equal
