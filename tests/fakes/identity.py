"""A real identity provider on loopback, and a browser's part in a login, without a browser.

with identity.running({"ann": {"preferred_username": "ann", "orgs": ["default"]}}) as provider:
    provider.issuer, provider.spec()
    provider.visit(url, "ann")   # what a person does there: log in, agree, be sent back
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.cookiejar
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.e2e import rootfs
from tests.fakes import ports

SOURCE = Path(__file__).parent / "oidc"
CLIENT, SECRET = "homeport", "only-the-service-knows-this"
# Some other application.
OTHER_CLIENT = "somebody-else"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
READY_S = 30.0

Users = dict[str, dict[str, Any]]


def folder() -> Path:
    """Where `make setup` put the provider."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    return rootfs.cache() / "oidc" / hashlib.sha256(lock).hexdigest()[:16]


def cannot_run() -> str:
    """Why there is none here; empty if there is."""
    if not shutil.which("node"):
        return "no node"
    return "" if (folder() / "node_modules").is_dir() else "run tests/setup/identity.sh"


@dataclass
class Provider:
    users: Users
    port: int
    ttl_s: int
    client: str
    keys: list[dict[str, Any]] = field(default_factory=list)
    # How far its clock is ahead of ours.
    clock_s: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spec(self, **more: Any) -> dict[str, Any]:
        """Of an AuthProvider for it: organisations and roles by claim."""
        return {
            "providerType": "oidc",
            "issuer": self.issuer,
            "clientId": self.client,
            "clientSecret": SECRET,
            "scopes": ["openid", "offline_access"],
            "organizationAssignment": {"type": "dynamic", "claimPath": ["orgs"]},
            "roleAssignment": {"type": "dynamic", "claimPath": ["roles"]},
        } | more

    def add_key(self) -> None:
        """From the next start on tokens are signed with a new key; the others stay published."""
        key = rsa.generate_private_key(65537, 2048)
        name = f"key-{len(self.keys)}"
        found = RSAAlgorithm.to_jwk(key, as_dict=True)
        self.keys.insert(0, {**found, "kid": name, "use": "sig", "alg": "RS256"})

    def start(self) -> None:
        client = {
            "client_id": self.client,
            "client_secret": SECRET,
            "token_endpoint_auth_method": "client_secret_post",
            "application_type": "native",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token", DEVICE_GRANT],
            "response_types": ["code"],
        }
        settings = {
            "port": self.port,
            "clients": [client, client | {"client_id": OTHER_CLIENT}],
            "keys": self.keys,
            "ttl": self.ttl_s,
            "clock": self.clock_s,
            "users": self.users,
        }
        target = folder() / "server.mjs"
        # Beside its modules, where node looks for them.
        target.write_bytes((SOURCE / "server.mjs").read_bytes())
        self._process = subprocess.Popen(
            ["node", str(target), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def rotate(self) -> None:
        """Sign with a new key, and publish the old one yet."""
        self.stop()
        self.add_key()
        self.start()

    def set_users(self, users: Users) -> None:
        """What is said of them from now on."""
        self.users = users
        self._tell()

    def set_roles(self, user: str, roles: list[str]) -> None:
        self.set_users(self.users | {user: self.users[user] | {"roles": roles}})

    def forget(self, user: str) -> None:
        """There is no such user any more."""
        self.set_users({name: said for name, said in self.users.items() if name != user})

    def set_ttl(self, ttl_s: int) -> None:
        """How long tokens last from now on; below zero they have expired when they are given."""
        self.ttl_s, self.clock_s = max(ttl_s, 1), min(ttl_s, 0)
        self._tell()

    def _tell(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        said = {"users": self.users, "ttl": self.ttl_s, "clock": self.clock_s}
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        self._process.stdin.flush()

    def oauth2(self, **more: Any) -> dict[str, Any]:
        """Of an AuthProvider of type oauth2 for it."""
        return (
            self.spec()
            | {
                "providerType": "oauth2",
                "authorizationUrl": f"{self.issuer}/auth",
                "tokenUrl": f"{self.issuer}/token",
                "userinfoUrl": f"{self.issuer}/me",
                "deviceAuthorizationUrl": f"{self.issuer}/device/auth",
                "introspection": {"type": "rfc7662", "url": f"{self.issuer}/token/introspection"},
            }
            | more
        )

    def visit(self, url: str, user: str) -> str:
        return visit(url, user, self.issuer)


# Loopback is as good as TLS to them.
_AS_BROWSERS = http.cookiejar.DefaultCookiePolicy(secure_protocols=("https", "http"))


def visit(url: str, user: str, issuer: str) -> str:
    """Go there as a person would, log in as `user`, agree to all; what stands there at the end: the
    last page's text, or that of the first that is not the provider's."""
    browser = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar(_AS_BROWSERS)),
    )
    page = browser.open(url, timeout=20)
    for _ in range(8):
        text = page.read().decode()
        form = _form(text)
        if form is None or not page.url.startswith(issuer):
            return text
        action, fields = form
        said = {"login": user, "username": user, "password": "x"}
        fields |= {key: value for key, value in said.items() if key in fields}
        target = urllib.parse.urljoin(page.url, action)
        page = browser.open(target, urllib.parse.urlencode(fields).encode(), timeout=20)
    raise AssertionError(f"the login does not end: {text}")


def _form(page: str) -> tuple[str, dict[str, str]] | None:
    found = re.search(r"<form[^>]*action=\"([^\"]*)\"[^>]*>(.*?)</form>", page, re.S)
    if found is None:
        return None
    fields = {}
    for tag in re.findall(r"<(?:input|button)[^>]*>", found[2]):
        said = dict(re.findall(r"(\w+)=\"([^\"]*)\"", tag))
        if "name" in said and said.get("value") != "abort" and said["name"] != "cancel":
            fields[said["name"]] = html.unescape(said.get("value", ""))
    return html.unescape(found[1]), fields


@contextlib.contextmanager
def running(users: Users, *, ttl_s: int = 600, client: str = CLIENT) -> Iterator[Provider]:
    """One with its own port and key, until the end of the block."""
    provider = Provider(users, ports.free_port(), ttl_s, client)
    provider.add_key()
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()
