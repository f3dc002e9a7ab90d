"""Who may do what, and which certificates say who somebody is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from apiserver.auth import certificates, roles
from apiserver.auth.chain import Evidence, always, first_of
from apiserver.auth.identity import Caller
from apiserver.errors import Forbidden, Unauthorized
from resources.registry import FLEET, KINDS, TEMPLATE_VERSION


@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("admin", "delete", "devices", True),
        ("admin", "create", "fleets/bindings", True),
        ("org-admin", "update", "enrollmentrequests/approval", True),
        ("viewer", "list", "devices", True),
        ("viewer", "watch", "fleets", True),
        ("viewer", "get", "fleets/status", True),
        ("viewer", "patch", "fleets", False),
        ("viewer", "get", "devices/rendered", False),
        ("viewer", "get", "contents", False),
        ("operator", "create", "fleets", True),
        ("operator", "delete", "devices", True),
        ("operator", "update", "devices/status", False),
        ("operator", "update", "enrollmentrequests/approval", False),
        ("operator", "create", "fleets/bindings", False),
        ("operator", "create", "namespaces", False),
        ("installer", "update", "enrollmentrequests/approval", True),
        ("installer", "list", "enrollmentrequests", True),
        ("installer", "create", "certificatesigningrequests", True),
        ("installer", "list", "devices", False),
        ("controller", "create", "fleets/bindings", True),
        ("controller", "get", "fleets/progress", True),
        ("controller", "patch", "rollouts/status", True),
        ("controller", "create", "templateversions", True),
        ("controller", "create", "events", True),
        ("controller", "delete", "devices", False),
        ("controller", "update", "enrollmentrequests/approval", False),
        ("controller", "create", "namespaces", False),
        ("device", "get", "devices", False),
        ("enrollment", "create", "enrollmentrequests", False),
        ("nobody", "get", "fleets", False),
        ("", "get", "fleets", False),
    ],
)
def test_the_table(role: str, verb: str, resource: str, allowed: bool) -> None:
    plural, _, subresource = resource.partition("/")
    assert roles.allowed(role, verb, plural, subresource) is allowed


@pytest.mark.parametrize("verb", ["create", "update", "patch"])
def test_what_the_service_writes_people_do_not(verb: str) -> None:
    roles.authorize(Caller("c", role="controller"), verb, TEMPLATE_VERSION)
    with pytest.raises(Forbidden):
        roles.authorize(Caller("a", role="admin"), verb, TEMPLATE_VERSION)
    roles.authorize(Caller("a", role="admin"), "delete", TEMPLATE_VERSION)


def test_a_refusal_says_who_what_and_where() -> None:
    with pytest.raises(Forbidden) as caught:
        roles.authorize(Caller("eve", role="viewer"), "delete", FLEET, "", "default", "web")
    assert caught.value.message == (
        'fleets.flightctl.io "web" is forbidden: User "eve" cannot delete resource "fleets" '
        'in API group "flightctl.io" in the namespace "default"'
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_nobody_without_a_role_reaches_any_kind(kind: object) -> None:
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete"):
        with pytest.raises(Forbidden):
            roles.authorize(Caller("x", role="nobody"), verb, kind)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Claims:
    signer: str = certificates.USER_SIGNER
    common_name: str = "admin"
    groups: tuple[str, ...] = ("system:masters",)


PROOF = Evidence(certificate=b"der")


def counts(_: Claims) -> None:
    """No certificate was revoked."""


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (("system:masters",), "admin"),
        (("flightctl-viewer",), "viewer"),
        (("flightctl-viewer", "flightctl-admin"), "admin"),
        (("strangers",), "nobody"),
        ((), "nobody"),
    ],
)
async def test_groups_give_the_role(groups: tuple[str, ...], role: str) -> None:
    claims = replace(Claims(), groups=groups)
    caller = await certificates.by_certificate(lambda _: claims, counts)(PROOF)
    assert caller is not None
    assert (caller.name, caller.role) == ("admin", role)
    assert "system:authenticated" in caller.groups


@pytest.mark.parametrize(
    "claims",
    [
        Claims(signer="flightctl.io/device-enrollment"),
        Claims(signer="flightctl.io/enrollment"),
        Claims(signer="flightctl.io/device-svc-client"),
        Claims(signer=""),
        Claims(common_name=""),
    ],
    ids=lambda claims: claims.signer or "none",
)
async def test_certificates_of_other_signers_are_nobody_whatever_they_claim(
    claims: Claims,
) -> None:
    with pytest.raises(Unauthorized):
        await certificates.by_certificate(lambda _: claims, counts)(PROOF)


async def test_a_certificate_that_counts_no_more_is_refused_from_then_on() -> None:
    revoked: list[str] = []

    def check(claims: Claims) -> None:
        if claims.common_name in revoked:
            raise Unauthorized("revoked")

    by_certificate = certificates.by_certificate(lambda _: Claims(), check)
    assert await by_certificate(PROOF) is not None
    revoked.append("admin")
    with pytest.raises(Unauthorized):
        await by_certificate(PROOF)


async def test_a_certificate_that_can_not_be_read_is_refused() -> None:
    def unreadable(_: bytes) -> Claims:
        raise ValueError("cut")

    with pytest.raises(Unauthorized):
        await certificates.by_certificate(unreadable, counts)(PROOF)


async def test_authenticators_are_asked_in_order() -> None:
    by_certificate = certificates.by_certificate(lambda _: Claims(), counts)
    socket = always(Caller("controllers", role="controller"))
    first = await first_of(by_certificate, socket)(PROOF)
    second = await first_of(by_certificate, socket)(Evidence())
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("admin", "controllers")
    assert await first_of(by_certificate)(Evidence()) is None
