"""People come with tokens of a real identity provider: through the CLI, then by plain kubectl."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from apiserver.auth import oidc, tokens
from tests.conformance.conftest import Kubectl, binaries, fleet, namespace_manifest
from tests.e2e import processes
from tests.fakes import apiserver_process, identity
from tests.fakes.apiserver_process import Process

pytestmark = pytest.mark.skipif(
    bool(identity.cannot_run()), reason=f"identity provider: {identity.cannot_run()}"
)

HOMEPORT = Path(sys.executable).parent / "homeport"


@dataclass
class Person:
    """Somebody at a machine of their own: homeport, kubectl, and what those keep."""

    home: Path
    server: Process
    name: str

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def environment(self) -> dict[str, str]:
        own = {
            "XDG_CONFIG_HOME": self.home / "config",
            "KUBECONFIG": self.kubeconfig,
            "KUBECACHEDIR": self.home / "cache",
        }
        return os.environ | {key: str(value) for key, value in own.items()}

    def authority(self) -> Path:
        entry = yaml.safe_load(self.server.kubeconfig.read_text())["clusters"][0]["cluster"]
        path = self.home / "ca.crt"
        path.write_bytes(base64.b64decode(entry["certificate-authority-data"]))
        return path

    def begin(self, *more: str) -> subprocess.Popen[str]:
        argv = [str(HOMEPORT), "login", self.server.url, "--certificate-authority"]
        return subprocess.Popen(
            [*argv, str(self.authority()), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(),
        )  # fmt: skip

    def log_in(self, provider: identity.Provider, *more: str) -> str:
        """In a browser; what homeport says in the end."""
        login = self.begin("--no-browser", *more)
        assert login.stderr is not None
        url = login.stderr.readline().removeprefix("Log in at ").strip()
        assert "You are logged in" in provider.visit(url, self.name), url
        out, errors = login.communicate(timeout=30)
        assert login.returncode == 0, errors
        return out

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, input=stdin, env=self.environment(), capture_output=True, text=True, timeout=60
        )

    def kubectl(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(_binary(), *argv, stdin=stdin)


def _binary() -> str:
    return str(binaries()[-1])


@dataclass
class Site:
    """Two organisations, an identity provider, and a name for its AuthProvider."""

    admin: Kubectl
    server: Process
    provider: identity.Provider
    ours: str
    theirs: str
    name: str

    def apply(self, spec: dict[str, Any]) -> None:
        self.admin("apply", "-f", "-", stdin=auth_provider(self.name, "default", spec))

    def person(self, name: str, home: Path) -> Person:
        home.mkdir(exist_ok=True)
        return Person(home, self.server, name)


def auth_provider(name: str, namespace: str, spec: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "AuthProvider",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    )


@pytest.fixture
def site(
    request: pytest.FixtureRequest, server: Process, caches: Path, tmp_path: Path
) -> Iterator[Site]:
    name = re.sub("[^a-z]+", "-", request.node.name.lower())[:30].strip("-")
    ours, theirs = f"{name}-ours", f"{name}-theirs"
    admin = Kubectl(Path(_binary()), server.kubeconfig, caches / "logins", "default")
    for namespace in (ours, theirs):
        admin("create", "-f", "-", stdin=namespace_manifest(namespace))

    def user(name: str, *roles: str) -> dict[str, Any]:
        return {"preferred_username": name, "orgs": [ours], "roles": list(roles)}

    users = {
        "ann": user("ann", "flightctl-viewer"),
        "bob": user("bob", f"{ours}:flightctl-org-admin"),
        "root": user("root", "flightctl-admin"),
    }
    ttl_s = getattr(request, "param", 600)
    with identity.running(users, ttl_s=ttl_s, client=name) as provider:
        site = Site(admin, server, provider, ours, theirs, name)
        site.apply(provider.spec())
        # As long as a look at the AuthProviders may be old.
        time.sleep(tokens.LOOK_S)
        try:
            yield site
        finally:
            admin("delete", "authprovider", name)


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode != 0, done.stdout
    assert words in done.stderr


def test_by_browser_and_then_with_plain_kubectl(site: Site, tmp_path: Path) -> None:
    ann = site.person("ann", tmp_path / "ann")
    said = ann.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    assert "logged in as ann; context" in said
    for path in (ann.kubeconfig, *(ann.home / "config/homeport/sessions").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    assert ann.run(str(HOMEPORT), "whoami").stdout == "ann\n"
    assert "ann" in ann.kubectl("auth", "whoami").stdout
    assert ann.kubectl("get", "fleets").returncode == 0
    refused(ann.kubectl("apply", "-f", "-", stdin=fleet("web")), 'User "ann" cannot')
    refused(ann.kubectl("get", "fleets", "-n", site.theirs), "forbidden")
    refused(ann.kubectl("get", "fleets", "--all-namespaces"), "forbidden")
    for own in ("namespaces", "organizations"):
        assert ann.kubectl("get", own, "-o", "name").stdout.split("/")[1:] == [f"{site.ours}\n"]
        refused(ann.kubectl("get", own, site.theirs), "forbidden")
    assert ann.kubectl("auth", "can-i", "list", "devices").stdout.strip() == "yes"
    assert ann.kubectl("auth", "can-i", "delete", "devices").stdout.startswith("no")
    asked = ("auth", "can-i", "list", "devices", "-n", site.theirs)
    assert ann.kubectl(*asked).stdout.startswith("no")

    ann.run(str(HOMEPORT), "logout", site.server.url)
    refused(ann.run(str(HOMEPORT), "get", "fleets"), "")


def test_an_admin_of_all_and_one_of_an_organization(site: Site, tmp_path: Path) -> None:
    root, bob = site.person("root", tmp_path / "root"), site.person("bob", tmp_path / "bob")
    root.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    bob.log_in(site.provider, "--provider", site.name, "-n", site.ours)
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


def test_by_a_code_where_there_is_no_browser(site: Site, tmp_path: Path) -> None:
    ann = site.person("ann", tmp_path / "ann")
    login = ann.begin("--device", "--provider", site.name, "-n", site.ours)
    assert login.stderr is not None
    assert "enter " in login.stderr.readline()
    url = login.stderr.readline().removeprefix("or open ").strip()
    assert "success" in site.provider.visit(url, "ann").lower()
    out, errors = login.communicate(timeout=30)
    assert login.returncode == 0, errors
    assert "logged in as ann" in out
    assert ann.kubectl("get", "fleets").returncode == 0


@pytest.mark.parametrize("site", [63], indirect=True)
def test_a_login_is_renewed_and_says_what_the_provider_says_now(site: Site, tmp_path: Path) -> None:
    """Tokens of 63 s are renewed after 3, since they must last another minute."""
    ann = site.person("ann", tmp_path / "ann")
    ann.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    first = _token(ann)
    assert ann.kubectl("get", "fleets").returncode == 0
    claims = site.provider.users["ann"]
    site.provider.set_users({"ann": claims | {"roles": []}})
    time.sleep(4)
    refused(ann.kubectl("get", "fleets"), 'User "ann" cannot list')
    assert _token(ann) != first
    site.provider.set_users({"ann": claims})
    time.sleep(4)
    assert ann.kubectl("get", "fleets").returncode == 0
    site.provider.set_users({})
    time.sleep(4)
    refused(ann.run(str(HOMEPORT), "credential", "--server", site.server.url), "was not renewed")


def test_keys_are_rotated_and_a_provider_is_down(site: Site, tmp_path: Path) -> None:
    ann, bob = site.person("ann", tmp_path / "ann"), site.person("bob", tmp_path / "bob")
    ann.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    site.provider.stop()
    assert ann.kubectl("get", "fleets").returncode == 0, "its key is known"
    login = bob.begin("--no-browser", "--provider", site.name)
    _, errors = login.communicate(timeout=60)
    assert login.returncode == 1
    assert "the identity provider can't be reached" in errors

    site.provider.add_key()
    site.provider.start()
    time.sleep(oidc.RENEW_S)
    bob.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    assert bob.kubectl("get", "fleets").returncode == 0, "with the new key"
    assert ann.kubectl("get", "fleets").returncode == 0, "with the old one, which is published yet"


def test_a_provider_that_is_switched_off_lets_nobody_in(site: Site, tmp_path: Path) -> None:
    ann = site.person("ann", tmp_path / "ann")
    ann.log_in(site.provider, "--provider", site.name, "-n", site.ours)
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


def test_a_token_for_another_is_none_for_us(site: Site, tmp_path: Path) -> None:
    ann = site.person("ann", tmp_path / "ann")
    ann.log_in(site.provider, "--provider", site.name, "-n", site.ours)
    given = _token(ann)
    site.apply(site.provider.spec(clientId="somebody-else"))
    time.sleep(tokens.LOOK_S)
    other = site.person("ann", tmp_path / "other")
    login = other.begin("--token", given)
    _, errors = login.communicate(timeout=30)
    assert login.returncode == 1
    assert "You must be logged in" in errors
    assert not other.kubeconfig.exists(), "nothing is kept of a login that is not taken"
    site.apply(site.provider.spec())
    time.sleep(tokens.LOOK_S)
    login = other.begin("--token", given, "-n", site.ours)
    assert "logged in as ann" in login.communicate(timeout=30)[0]
    assert other.kubectl("get", "fleets").returncode == 0


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
        connection.request("GET", "/apis", headers={"Authorization": f"Bearer {'a' * size}"})
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == status, text
    assert b"no JWT" in text if status == 401 else b"bytes" in text


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


def _token(person: Person) -> str:
    (path,) = (person.home / "config/homeport/sessions").glob("*.json")
    found: str = json.loads(path.read_text())["token"]
    return found
