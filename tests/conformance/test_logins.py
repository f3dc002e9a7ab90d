"""People come with tokens of a real identity provider: through the CLI, then by plain kubectl."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from apiserver.auth import tokens
from apiserver.auth.claims import SKEW_S
from tests.conformance.conftest import Kubectl, binaries, fleet, namespace_manifest
from tests.e2e import processes
from tests.fakes import apiserver_process, identity
from tests.fakes.apiserver_process import Process
from tests.fakes.logins import OAuth2Logins, OidcLogins, renewed
from tests.fakes.people import HOMEPORT, Person, Site, auth_provider, refused

WATCHED_S = 12

pytestmark = pytest.mark.skipif(
    bool(identity.cannot_run()), reason=f"identity provider: {identity.cannot_run()}"
)


@contextlib.contextmanager
def a_site(name: str, server: Process, caches: Path, home: Path) -> Iterator[Site]:
    """Without an AuthProvider as yet."""
    ours, theirs = f"{name}-ours", f"{name}-theirs"
    admin = Kubectl(binaries()[-1], server.kubeconfig, caches / "logins", "default")
    for namespace in (ours, theirs):
        admin("create", "-f", "-", stdin=namespace_manifest(namespace))

    def user(name: str, *roles: str) -> dict[str, Any]:
        return {"preferred_username": name, "orgs": [ours], "roles": list(roles)}

    users = {
        "ann": user("ann", "flightctl-viewer"),
        "bob": user("bob", f"{ours}:flightctl-org-admin"),
        "root": user("root", "flightctl-admin"),
    }
    with identity.running(users, client=name) as provider:
        yield Site(admin, server, provider, ours, theirs, name, home)
        admin("delete", "authprovider", name)


def name_of(request: pytest.FixtureRequest) -> str:
    whole = f"{request.cls.__name__ if request.cls else ''}-{request.node.name}"
    return re.sub("[^a-z]+", "-", whole.lower().replace("test", ""))[:40].strip("-")


@pytest.fixture
def site(
    request: pytest.FixtureRequest, server: Process, caches: Path, tmp_path: Path
) -> Iterator[Site]:
    with a_site(name_of(request), server, caches, tmp_path) as site:
        site.apply_and_wait(site.spec)
        yield site


class TestOidc(OidcLogins):
    SHORTEST_S = -60


class TestOAuth2(OAuth2Logins):
    @pytest.fixture
    def site(
        self, request: pytest.FixtureRequest, server: Process, caches: Path, tmp_path: Path
    ) -> Iterator[Site]:
        with a_site(name_of(request), server, caches, tmp_path) as site:
            site.is_opaque = True
            site.apply_and_wait(site.spec)
            yield site


def test_an_admin_of_all_and_one_of_an_organization(site: Site) -> None:
    root, bob = site.person("root"), site.person("bob")
    root.log_in(site.provider, *site.options)
    bob.log_in(site.provider, *site.options)
    assert root.kubectl("get", "fleets", "-n", site.theirs).returncode == 0
    assert root.kubectl("get", "organizations").returncode == 0
    assert bob.kubectl("apply", "-f", "-", stdin=fleet("web")).returncode == 0
    refused(bob.kubectl("apply", "-n", site.theirs, "-f", "-", stdin=fleet("web")), "forbidden")

    static = {"type": "static", "organizationName": site.ours}
    spec = site.provider.spec(organizationAssignment=static, clientId="bobs")
    mine = auth_provider("mine", site.ours, spec)
    assert bob.kubectl("apply", "-f", "-", stdin=mine).returncode == 0
    wide = auth_provider("wide", site.ours, site.provider.spec(clientId="wide"))
    refused(bob.kubectl("apply", "-f", "-", stdin=wide), "takes a super administrator")
    refused(bob.kubectl("create", "ns", "bobs"), "forbidden")
    shown = bob.kubectl("get", "authprovider", "mine", "-o", "json").stdout
    assert identity.SECRET not in shown
    assert json.loads(shown)["spec"]["clientSecret"] == "*****"
    # The administrator of all vouches for what he has written: nobody else may change it.
    assert root.kubectl("apply", "-f", "-", stdin=wide).returncode == 0
    evil = auth_provider("wide", site.ours, site.provider.spec(issuer="https://evil.example.com"))
    refused(bob.kubectl("apply", "-f", "-", stdin=evil), "only one may change it")


def test_a_provider_that_is_switched_off_lets_nobody_in(site: Site) -> None:
    ann = site.person("ann")
    ann.log_in(site.provider, *site.options)
    assert ann.kubectl("get", "fleets").returncode == 0
    site.apply(site.provider.spec(enabled=False))
    processes.until(
        lambda: ann.kubectl("get", "fleets").returncode != 0, "refused", timeout_s=tokens.LOOK_S + 5
    )
    why = "You must be logged in to the server (no identity provider is known here"
    refused(ann.run(str(HOMEPORT), "get", "fleets"), why)
    refused(ann.kubectl("get", "fleets"), why)
    site.apply(site.provider.spec())
    processes.until(
        lambda: ann.kubectl("get", "fleets").returncode == 0, "let in", timeout_s=tokens.LOOK_S + 5
    )


def test_kubectls_watch_ends_with_its_token(site: Site) -> None:
    """With a token alone, for a login would renew it: as at a timeout kubectl ends without a word,
    and is refused when it comes again."""
    ann = site.logged_in("ann")
    # A few seconds of life, and what clocks may differ by.
    site.provider.set_ttl(WATCHED_S - int(SKEW_S))
    token = renewed(ann)["id_token"]
    ends = jwt.decode(token, options={"verify_signature": False})["exp"] + SKEW_S
    address = ("--server", ann.server.url, "--certificate-authority", str(ann.authority()))
    fleets = (*address, "--token", token, "--kubeconfig", os.devnull, "get", "fleets")
    watched = ann.kubectl(*fleets, "-n", site.ours, "--watch")
    assert (watched.returncode, watched.stdout, watched.stderr) == (0, "", "")
    assert time.time() >= ends
    refused(ann.kubectl(*fleets, "-n", site.ours), "logged in to the server")


def of_nobody(size: int) -> str:
    claims = {"iss": "https://nobody.example.com", "pad": "a" * (size * 3 // 4 - 140)}
    return jwt.encode(claims, "none of yours" * 3, "HS256")


@pytest.mark.parametrize(("size", "status"), [(tokens.TOKEN_BYTES_MAX, 401), (40_000, 400)])
def test_a_token_may_be_as_long_as_providers_make_them(
    server: Process, tmp_path: Path, size: int, status: int
) -> None:
    """Those with many groups are; aiohttp would let eight kilobytes through."""
    person = Person(tmp_path, server, "ann")
    context = ssl.create_default_context(cafile=str(person.authority()))
    address = urlsplit(server.url)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/apis", headers={"Authorization": f"Bearer {of_nobody(size)}"})
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == status, text
    assert b"no identity provider is known" in text if status == 401 else b"bytes" in text


def test_providers_of_the_file_that_the_server_was_started_with(tmp_path: Path) -> None:
    users = {
        "ann": {"preferred_username": "ann", "orgs": ["default"], "roles": ["flightctl-viewer"]}
    }
    with identity.running(users) as provider, identity.running(users) as off:
        file = tmp_path / "providers.yaml"
        documents = [
            auth_provider("company", "default", provider.spec()),
            auth_provider("apart", "default", off.spec(enabled=False)),
        ]
        file.write_text("\n---\n".join(documents))
        with apiserver_process.running(tmp_path / "data", "--auth-providers", str(file)) as server:
            home = tmp_path / "ann"
            home.mkdir()
            ann = Person(home, server, "ann")
            ann.log_in(provider)
            assert ann.kubectl("get", "fleets").returncode == 0
            assert "No resources found" in ann.kubectl("get", "authproviders").stderr
            _, errors = ann.begin("--provider", "apart").communicate(timeout=30)
            assert "choose one of company" in errors
