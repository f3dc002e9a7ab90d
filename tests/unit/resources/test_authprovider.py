"""What an AuthProvider means where it says nothing, and the types that people can't make."""

from __future__ import annotations

from typing import Any

import pytest

from resources import authprovider, registry, validation
from resources.kind import Json

OAUTH2: Json = {
    "providerType": "oauth2",
    "authorizationUrl": "https://id.example.com/authorize",
    "tokenUrl": "https://id.example.com/token",
    "userinfoUrl": "https://id.example.com/me",
    "clientId": "homeport",
    "clientSecret": "x",
    "organizationAssignment": {"type": "static", "organizationName": "default"},
    "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
}


def problems(**spec: Any) -> list[str]:
    document = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "AuthProvider",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {key: value for key, value in (OAUTH2 | spec).items() if value is not None},
    }
    found = validation.validate(registry.AUTH_PROVIDER, document)
    return [f"{each.path}: {each.detail}" for each in found]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"type": "rfc7662", "url": "https://id.example.com/introspect"}),
        ({"tokenUrl": "https://id.example.com/oauth"}, {}),
        (
            {"introspection": {"type": "jwt", "jwksUrl": "https://id.example.com/keys"}},
            {"type": "jwt", "jwksUrl": "https://id.example.com/keys"},
        ),
        (
            {"tokenUrl": "https://github.com/login/oauth/access_token"},
            {"type": "github", "url": "https://api.github.com"},
        ),
        (
            {"authorizationUrl": "https://github.acme.example/login/oauth/authorize"},
            {"type": "github", "url": "https://github.acme.example/api/v3"},
        ),
        (
            {"introspection": {"type": "github"}},
            {"type": "github", "url": "https://api.github.com"},
        ),
        # A path is no host.
        (
            {"authorizationUrl": "https://id.example.com/github"},
            {"type": "rfc7662", "url": "https://id.example.com/introspect"},
        ),
    ],
)
def test_who_tells_if_a_token_is_valid(spec: Json, expected: Json) -> None:
    assert authprovider.introspection(OAUTH2 | spec) == expected
    asked = "spec.introspection: tokenUrl does not tell whom to ask"
    assert problems(**spec) == ([] if expected else [asked])


@pytest.mark.parametrize("kind", ["k8s", "openshift", "aap", "saml", None])
def test_other_types_are_refused_with_what_to_do(kind: str | None) -> None:
    (problem,) = problems(providerType=kind)
    assert "write one of: oidc, oauth2; k8s is for the file of --auth-providers" in problem
    assert "openshift and aap are not served" in problem


def test_what_holds_where_nothing_is_said() -> None:
    found = authprovider.completed({"providerType": "k8s", "apiUrl": "https://k", "rbacNs": "x"})
    assert found["organizationAssignment"]["organizationName"] == "default"
    assert found["tokenFile"].endswith("serviceaccount/token")
    assert authprovider.completed(OAUTH2)["issuer"] == OAUTH2["authorizationUrl"]
