"""Keycloak on loopback: a second real identity provider, with a realm for each who asks.

with keycloak.running(folder) as server:
    provider = server.realm("acme", {"ann": ["flightctl-viewer"]}, orgs=["acme"])

It takes half a minute to start, so one is shared. Comes from the cache that
`tests/setup/keycloak.sh` fills.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import processes, rootfs
from tests.fakes import identity, ports

VERSION = "26.5.6"
ADMIN = "admin"
READY_S = 400.0
_KEYS = "org.keycloak.keys.KeyProvider"


def folder() -> Path:
    return rootfs.cache() / "keycloak" / f"keycloak-{VERSION}"


def cannot_run() -> str:
    """Why there is none here; empty if there is."""
    if not shutil.which("java"):
        return "no java"
    return "" if folder().is_dir() else "tests/setup/keycloak.sh says why"


@dataclass
class Realm:
    """An identity provider of its own."""

    server: Server
    name: str
    client: str
    orgs: list[str]
    ttl_s: int
    users: dict[str, list[str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"{self.server.url}/realms/{self.name}"

    def spec(self, **more: Any) -> dict[str, Any]:
        """Of an AuthProvider for it: organisations by claim, roles by groups."""
        return {
            "providerType": "oidc",
            "issuer": self.issuer,
            "clientId": self.client,
            "clientSecret": identity.SECRET,
            "scopes": ["openid", "offline_access"],
            "organizationAssignment": {"type": "dynamic", "claimPath": ["orgs"]},
            "roleAssignment": {"type": "dynamic", "claimPath": ["roles"]},
        } | more

    def oauth2(self, **more: Any) -> dict[str, Any]:
        """The same of type oauth2."""
        at = f"{self.issuer}/protocol/openid-connect"
        addresses = {
            "providerType": "oauth2",
            "authorizationUrl": f"{at}/auth",
            "tokenUrl": f"{at}/token",
            "userinfoUrl": f"{at}/userinfo",
            "deviceAuthorizationUrl": f"{at}/auth/device",
            "introspection": {"type": "rfc7662", "url": f"{at}/token/introspect"},
        }
        return self.spec() | addresses | more

    def start(self) -> None:
        self.server.start()
        self._make()

    def stop(self) -> None:
        self.server.stop()

    def set_ttl(self, ttl_s: int) -> None:
        """How long tokens last from now on."""
        self.server.ask("PUT", f"/{self.name}", {"accessTokenLifespan": ttl_s})

    def _make(self) -> None:
        """The server keeps nothing over a restart, so it is made again, with keys of its own."""
        self.server.ask("POST", "", self._document())

    def _document(self) -> dict[str, Any]:
        groups = sorted({role for roles in self.users.values() for role in roles})
        return {
            "realm": self.name,
            "enabled": True,
            "sslRequired": "none",
            "accessTokenLifespan": self.ttl_s,
            "groups": [{"name": role} for role in groups],
            # Those that are used; it would make twice as many keys of RSA.
            "components": {
                _KEYS: [
                    {"name": kind, "providerId": f"{kind}-generated"}
                    for kind in ("rsa", "hmac", "aes")
                ]
            },
            "users": [
                {
                    "username": name, "enabled": True, "email": f"{name}@example.com",
                    "emailVerified": True, "firstName": name, "lastName": name,
                    "groups": roles, "realmRoles": ["offline_access"],
                    "credentials": [{"type": "password", "value": "x"}],
                }
                for name, roles in self.users.items()
            ],
            "clients": [
                {
                    "clientId": client, "secret": identity.SECRET, "publicClient": False,
                    "redirectUris": ["http://127.0.0.1/callback"], "standardFlowEnabled": True,
                    "directAccessGrantsEnabled": False,
                    "attributes": {"oauth2.device.authorization.grant.enabled": "true"},
                    "protocolMappers": [
                        _mapper("roles", "oidc-group-membership-mapper", {"full.path": "false"}),
                        _mapper("orgs", "oidc-hardcoded-claim-mapper", {
                            "claim.value": json.dumps(self.orgs), "jsonType.label": "JSON",
                        }),
                    ],
                }
                for client in (self.client, identity.OTHER_CLIENT)
            ],
        }  # fmt: skip

    def rotate(self) -> None:
        """Sign with a new key, and publish the old one yet."""
        realm = self.server.ask("GET", f"/{self.name}")
        self.server.ask("POST", f"/{self.name}/components", {
            "name": "newer", "providerId": "rsa-generated", "parentId": realm["id"],
            "providerType": _KEYS,
            "config": {"priority": ["200"], "active": ["true"], "enabled": ["true"]},
        })  # fmt: skip

    def set_roles(self, user: str, roles: list[str]) -> None:
        """The groups that a user is in, from now on; those must be there."""
        path = f"/{self.name}/users/{self._id(user)}/groups"
        for group in self.server.ask("GET", path):
            self.server.ask("DELETE", f"{path}/{group['id']}")
        there = {
            each["name"]: each["id"] for each in self.server.ask("GET", f"/{self.name}/groups")
        }
        for role in roles:
            self.server.ask("PUT", f"{path}/{there[role]}")

    def forget(self, user: str) -> None:
        """There is no such user any more."""
        self.server.ask("DELETE", f"/{self.name}/users/{self._id(user)}")

    def _id(self, user: str) -> str:
        (found,) = self.server.ask("GET", f"/{self.name}/users?username={user}&exact=true")
        return str(found["id"])

    def visit(self, url: str, user: str) -> str:
        return identity.visit(url, user, self.server.url)


def _mapper(name: str, kind: str, config: dict[str, str]) -> dict[str, Any]:
    where = ("id.token.claim", "access.token.claim", "userinfo.token.claim")
    return {
        "name": name,
        "protocol": "openid-connect",
        "protocolMapper": kind,
        "config": {"claim.name": name, **dict.fromkeys(where, "true"), **config},
    }


@dataclass
class Server:
    port: int
    log: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def realm(
        self, name: str, users: dict[str, list[str]], orgs: list[str], *, ttl_s: int = 600
    ) -> Realm:
        """A new one; `users` are in groups that are called as roles are."""
        made = Realm(self, name, name, orgs, ttl_s, users)
        made._make()
        return made

    def start(self) -> None:
        environment = os.environ | {
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN,
            "JAVA_OPTS_APPEND": "-Xmx512m -XX:TieredStopAtLevel=1",
        }
        # The script ends Java when it is told to.
        setpriv = shutil.which("setpriv")
        bound = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*bound, str(folder() / "bin/kc.sh"), "start", "--optimized", "--http-enabled=true",
                 "--hostname-strict=false", "--http-host=127.0.0.1", f"--http-port={self.port}"],
                env=environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        processes.until(self._is_ready, "Keycloak serves", timeout_s=READY_S)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            self._token()
        except (OSError, urllib.error.HTTPError):
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            # The script has Java as its child.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _token(self) -> str:
        form = {
            "grant_type": "password", "client_id": "admin-cli", "username": ADMIN,
            "password": ADMIN,
        }  # fmt: skip
        url = f"{self.url}/realms/master/protocol/openid-connect/token"
        with _direct().open(url, urllib.parse.urlencode(form).encode(), timeout=20) as answer:
            return str(json.load(answer)["access_token"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The administrator's API: JSON, or None where there is none."""
        request = urllib.request.Request(
            f"{self.url}/admin/realms{path}",
            json.dumps(body).encode() if body is not None else None,
            {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"},
            method=method,
        )
        with _direct().open(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Server]:
    """With its own port, until the end of the block."""
    server = Server(ports.free_port(), directory / "keycloak.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()
