"""A registry as its clients see it, read only: TLS, credentials, tokens, ranges.

Knows what most devices have: `auths` in a containers-auth.json file, HTTP Basic or a Bearer token
for it, certificates in certs.d. `of` answers None, and `open` raises NotUnderstood, for all else:
the caller has podman, which knows the rest.

Whoever runs it, root or a user of the device, is who is meant: podman reads files of theirs before
those of the device.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent import pullerrors

Json = dict[str, Any]

TIMEOUT_S = 30.0
TOKEN_BYTES_MAX = 1 << 20
BUSY = (429, 503)
# More is a mistake, or would look like one.
RETRY_AFTER_S_MAX = 3600
# Folders with what is set for containers: of the device, and what comes with it.
DEVICE, VENDOR = Path("/etc/containers"), Path("/usr/share/containers")
REGISTRIES, REGISTRIES_DIR, POLICY = "registries.conf", "registries.conf.d", "policy.json"
CERTS = "certs.d"
DOCKER_CERTS = Path("/etc/docker/certs.d")
DOCKER, DOCKER_API, DOCKER_AUTH = "docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"
_FIELD = re.compile(r'(\w+)="([^"]*)"')


class NotUnderstood(Exception):
    """The registry asks for something that only a whole client knows."""


class Source:
    """One registry, with the credentials for one repository. `retry_after_s`: it is busy (429, 503)
    and does not want to be asked for so long; 0 = its last answer was another."""

    def __init__(self, host: str, basic: str, context: ssl.SSLContext, *, scheme: str = "https"):
        self.host = host
        self._basic = basic
        api = DOCKER_API if host == DOCKER else host
        self._base = f"{scheme}://{api}/v2"
        self.retry_after_s = 0
        self._tokens: dict[str, str] = {}
        handlers: list[Any] = [urllib.request.HTTPSHandler(context=context)]
        if _is_loopback(host):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def open(self, path: str, *, accept: str = "", offset: int = 0) -> Any:
        """The answer, to be closed. Raises HTTPError, OSError, NotUnderstood."""
        repository = path.rpartition("/")[0].rpartition("/")[0]
        try:
            return self._ask(path, accept, offset, self._tokens.get(repository, ""))
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            challenge = error.headers.get("WWW-Authenticate") or ""
        self._tokens[repository] = self._authorization(challenge)
        return self._ask(path, accept, offset, self._tokens[repository])

    def _ask(self, path: str, accept: str, offset: int, authorization: str) -> Any:
        request = urllib.request.Request(f"{self._base}/{path}")  # noqa: S310 - http only in tests
        if accept:
            request.add_header("Accept", accept)
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        if authorization:
            # Not for who it is passed on to: stores of blobs refuse a stranger's.
            request.add_unredirected_header("Authorization", authorization)
        self.retry_after_s = 0
        try:
            return self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            # What it has to say beyond its headers is for podman to hear.
            error.close()
            if error.code in BUSY:
                asked = (error.headers.get("Retry-After") or "").strip()
                # A date needs a clock that is right; a registry that gives one is asked by the
                # agent's own pauses.
                seconds = int(asked) if asked.isascii() and asked.isdigit() else 0
                self.retry_after_s = min(seconds, RETRY_AFTER_S_MAX)
            raise

    def _authorization(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._basic:
            return f"Basic {self._basic}"
        fields = dict(_FIELD.findall(rest))
        realm = fields.pop("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith("https://"):
            raise NotUnderstood
        asked = {k: v for k, v in fields.items() if k in ("service", "scope")}
        request = urllib.request.Request(f"{realm}?{urllib.parse.urlencode(asked)}")  # noqa: S310
        if self._basic:
            request.add_unredirected_header("Authorization", f"Basic {self._basic}")
        with self._opener.open(request, timeout=TIMEOUT_S) as answer:
            try:
                found = json.loads(answer.read(TOKEN_BYTES_MAX))
                return f"Bearer {found.get('token') or found['access_token']}"
            except (ValueError, KeyError, AttributeError) as error:
                raise NotUnderstood from error


def of(reference: str, auth_file: str, environ: Mapping[str, str]) -> Source | None:
    """None = this device has rules for it that only podman knows."""
    host = pullerrors.registry_of(reference)
    own_rules = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    if not host or own_rules:
        return None
    try:
        own = Path.home() / ".config/containers"
        if _has_rules(host, own) or any(_has_policy(f / POLICY, host) for f in (own, DEVICE)):
            return None
        files = (Path(auth_file),) if auth_file else auth_files(environ)
        basic = credentials((_json(file) for file in files), reference)
        context = _context(host, own)
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError):
        return None
    return None if basic is None else Source(host, basic, context)


def auth_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where podman looks for credentials that nobody has named; the first counts that knows."""
    runtime, home = environ.get("XDG_RUNTIME_DIR"), Path.home()
    first = Path(runtime, "containers") if runtime else Path(f"/run/containers/{os.geteuid()}")
    places = (first / "auth.json", home / ".config/containers/auth.json")
    return (*places, home / ".docker/config.json")


def credentials(documents: Iterable[Json], reference: str) -> str | None:
    """Base64 of user and password; empty = none are needed; None = a helper would have to say."""
    for document in documents:
        if document.get("credHelpers") or document.get("credsStore"):
            return None
        auths = document.get("auths") or {}
        for name in _names(reference):
            entry = auths.get(name)
            if entry is None:
                continue
            if entry.get("identitytoken"):
                return None
            return str(entry.get("auth") or "")
    return ""


def _names(reference: str) -> Iterable[str]:
    """The repository, what is around it, its registry: the nearest counts."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    path = f"{head}{slash}{last.partition(':')[0]}"
    while path:
        yield path
        path = path.rpartition("/")[0]
    if reference.startswith(f"{DOCKER}/"):
        yield DOCKER_AUTH


def has_rules(documents: Iterable[Json], host: str) -> bool:
    """Whether a registries.conf says anything about a registry, or about all."""
    for document in documents:
        for one in document.get("registry") or ():
            place = str(one.get("prefix") or one.get("location") or "")
            if place.startswith("*.") or place.split("/", 1)[0] == host:
                return True
    return False


def _has_rules(host: str, own: Path) -> bool:
    files = [folder / REGISTRIES for folder in (own, DEVICE, VENDOR)]
    for folder in (own / REGISTRIES_DIR, DEVICE / REGISTRIES_DIR):
        files += sorted(folder.glob("*.conf")) if folder.is_dir() else ()
    return has_rules((tomllib.loads(f.read_text()) for f in files if f.is_file()), host)


def is_trusting(policy: Json, host: str) -> bool:
    """No signature is asked for what comes from there."""
    scopes = (policy.get("transports") or {}).get("docker") or {}
    rules = [policy.get("default") or ()]
    for scope, rule in scopes.items():
        if not scope or scope.startswith("*.") or scope.split("/", 1)[0] == host:
            rules.append(rule)
    return all(one.get("type") == "insecureAcceptAnything" for rule in rules for one in rule)


def _has_policy(path: Path, host: str) -> bool:
    return path.is_file() and not is_trusting(json.loads(path.read_text()), host)


def _json(path: Path) -> Json:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _context(host: str, own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Newer Pythons are stricter with certificates than the clients that registries are made for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for folder in (place / host for place in (own / CERTS, DEVICE / CERTS, DOCKER_CERTS)):
        if folder.is_dir():
            for file in folder.glob("*.crt"):
                context.load_verify_locations(file)
            for file in folder.glob("*.cert"):
                context.load_cert_chain(file, file.with_suffix(".key"))
    return context


def _is_loopback(host: str) -> bool:
    """As Go's clients do it, these never go by a proxy."""
    name = host.rpartition(":")[0] or host
    return name == "localhost" or name.startswith("127.")
