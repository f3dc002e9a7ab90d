"""The list of logins at Keycloak: a second real identity provider, with groups, consent and realms.

It takes half a minute to start, so `make test` starts it once, for the lines that a provider could
see differently: the ways to log in, plain kubectl afterwards, and a group that is taken away. The
whole list, for both types, is behind the soak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Kubectl, binaries, namespace_manifest
from tests.fakes import apiserver_process, keycloak
from tests.fakes.apiserver_process import Process
from tests.fakes.logins import VIEWER, OAuth2Logins, OidcLogins
from tests.fakes.people import Site

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(keycloak.cannot_run()), reason=f"no Keycloak: {keycloak.cannot_run()}"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with apiserver_process.running(tmp_path_factory.mktemp("service") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[keycloak.Server]:
    with keycloak.running(tmp_path_factory.mktemp("keycloak")) as provider:
        yield provider


class Keycloak:
    """A realm for each test."""

    IS_OPAQUE = False

    @pytest.fixture
    def site(
        self,
        request: pytest.FixtureRequest,
        server: Process,
        provider: keycloak.Server,
        tmp_path: Path,
    ) -> Iterator[Site]:
        whole = f"{request.cls.__name__}-{request.node.name}".lower().replace("test", "")
        name = re.sub("[^a-z0-9]+", "-", whole)[:40].strip("-")
        ours, theirs = f"{name}-ours", f"{name}-theirs"
        admin = Kubectl(binaries()[-1], server.kubeconfig, tmp_path / "cache", "default")
        for namespace in (ours, theirs):
            admin("create", "-f", "-", stdin=namespace_manifest(namespace))
        users = {
            "ann": VIEWER, "bob": [f"{ours}:flightctl-org-admin"], "root": ["flightctl-admin"],
        }  # fmt: skip
        realm = provider.realm(name, users, [ours])
        site = Site(admin, server, realm, ours, theirs, name, tmp_path, self.IS_OPAQUE)
        site.apply_and_wait(site.spec)
        try:
            yield site
        finally:
            admin("delete", "authprovider", name)


class TestInShort(Keycloak):
    test_browser = OidcLogins.test_in_a_browser_and_then_with_plain_kubectl
    test_code = OidcLogins.test_by_a_code_where_there_is_no_browser
    test_group = OidcLogins.test_who_leaves_a_group_is_out_at_the_next_renewal


@pytest.mark.soak
class TestOidc(Keycloak, OidcLogins):
    pass


@pytest.mark.soak
class TestOAuth2(Keycloak, OAuth2Logins):
    IS_OPAQUE = True
