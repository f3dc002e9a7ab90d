"""`--auth-providers FILE`: what is wrong with it is said before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apiserver import config


def provider(name: str = "company", **spec: Any) -> str:
    whole = {
        "providerType": "oidc",
        "issuer": "https://id.example.com",
        "clientId": "homeport",
        "clientSecret": "not to be told",
        "organizationAssignment": {"type": "static", "organizationName": "default"},
        "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
    } | spec
    return json.dumps(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "AuthProvider",
            "metadata": {"name": name},
            "spec": whole,
        }
    )


def cluster(**spec: Any) -> str:
    document = json.loads(provider())
    whole = {"providerType": "k8s", "apiUrl": "https://k8s.example.com", "rbacNs": "fleet"} | spec
    document["spec"] = {key: value for key, value in whole.items() if value is not None}
    return json.dumps(document)


def settings(folder: Path, text: str | None) -> config.Settings:
    file = folder / "providers.yaml"
    if text is not None:
        file.write_text(text)
    return config.settings_of(data=folder / "data", auth_providers=file)


def test_documents_that_are_good(tmp_path: Path) -> None:
    given = f"---\n{provider('a')}\n---\n---\n{provider('b')}\n---\n{cluster()}\n"
    found = settings(tmp_path, given).providers
    assert [each["metadata"]["name"] for each in found] == ["a", "b", "company"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "can't be read"),
        ("{", "can't be read"),
        ("- a", "must be of kind AuthProvider"),
        ("kind: Fleet", "must be of kind AuthProvider"),
        ("kind: AuthProvider", "apiVersion: give it"),
        (provider().replace('"name": "company"', ""), "metadata.name"),
        (provider().replace('"metadata"', '"meta"'), "metadata"),
        (provider(issuer="id.example.com"), "spec.issuer: must be an absolute URL"),
        (provider(providerType="aap"), "spec: write one of: oidc, oauth2, k8s; openshift and aap"),
        (cluster(apiUrl="k8s"), "spec.apiUrl: must be an absolute URL"),
        (cluster(rbacNs=None), "spec.rbacNs: needed without roleAssignment"),
        (cluster(clientSecret="x"), "spec.clientSecret: does not go with"),
        (provider(roleAssignment={"type": "static", "roles": ["x"]}), r"spec.roleAssignment.roles"),
        (f"{provider('a')}\n---\n{provider('a')}", "two are called a"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret_with_it(
    tmp_path: Path, text: str | None, words: str
) -> None:
    with pytest.raises(config.ConfigError, match=words) as refused:
        settings(tmp_path, text)
    assert "--auth-providers" in str(refused.value)
    assert "not to be told" not in str(refused.value)
