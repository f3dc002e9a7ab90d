"""Which registries the mirror understands, with whose credentials; tokens over real TLS."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent import upstream
from tests.fakes import tls_listener
from tests.fakes.service import Authority

Json = dict[str, Any]


def auths(**entries: Json) -> Json:
    return {"auths": {key.replace("_", "/"): value for key, value in entries.items()}}


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([], ""),
        ([{}], ""),
        ([{"auths": {"q.io": {"auth": "A"}}}], "A"),
        # The nearest counts, and of several files the first that knows.
        ([{"auths": {"q.io": {"auth": "A"}, "q.io/org/web": {"auth": "B"}}}], "B"),
        ([{"auths": {"q.io/org": {"auth": "C"}, "q.io/or": {"auth": "D"}}}], "C"),
        ([{"auths": {"x.io": {"auth": "A"}}}, {"auths": {"q.io": {"auth": "E"}}}], "E"),
        ([{"auths": {"q.io": {"identitytoken": "t"}}}], None),
        ([{"credHelpers": {"q.io": "secretservice"}}], None),
        ([{"credsStore": "pass"}], None),
    ],
)
def test_credentials(documents: list[Json], found: str | None) -> None:
    assert upstream.credentials(documents, "q.io/org/web:1") == found
    assert upstream.credentials(documents, "q.io/org/web@sha256:00") == found


def test_dockers_own_registry_is_called_otherwise_in_its_file() -> None:
    document = {"auths": {"https://index.docker.io/v1/": {"auth": "A"}}}
    assert upstream.credentials([document], "docker.io/library/web:1") == "A"


@pytest.mark.parametrize(
    ("rules", "has"),
    [
        ({}, False),
        ({"unqualified-search-registries": ["docker.io"]}, False),
        ({"registry": [{"location": "x.io"}]}, False),
        ({"registry": [{"location": "q.io/org"}]}, True),
        ({"registry": [{"prefix": "q.io", "location": "x.io"}]}, True),
        ({"registry": [{"prefix": "*.io", "location": "x.io"}]}, True),
    ],
)
def test_registries_with_rules_of_their_own_are_left_to_podman(rules: Json, has: bool) -> None:
    assert upstream.has_rules([rules], "q.io") is has


ANYTHING = [{"type": "insecureAcceptAnything"}]
SIGNED = [{"type": "signedBy"}]


@pytest.mark.parametrize(
    ("policy", "is_trusting"),
    [
        ({"default": ANYTHING}, True),
        ({"default": [{"type": "reject"}]}, False),
        ({"default": ANYTHING, "transports": {"docker": {"x.io": SIGNED}}}, True),
        ({"default": ANYTHING, "transports": {"docker": {"q.io/org": SIGNED}}}, False),
        ({"default": ANYTHING, "transports": {"docker": {"": SIGNED}}}, False),
        ({"default": ANYTHING, "transports": {"docker": {"*.io": SIGNED}}}, False),
    ],
)
def test_where_signatures_are_asked_for_it_is_podmans_to_check(
    policy: Json, is_trusting: bool
) -> None:
    assert upstream.is_trusting(policy, "q.io") is is_trusting


def test_a_name_that_does_not_say_its_registry_is_podmans_to_resolve() -> None:
    assert upstream.of("org/web:1", "", {}) is None
    assert upstream.of("q.io/web:1", "", {"CONTAINERS_REGISTRIES_CONF": "/x"}) is None


def test_of_a_user_their_own_files_count_before_those_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they have set themselves for a registry is podman's to read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".config/containers"
    own.mkdir(parents=True)
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert [*upstream.auth_files(runtime), *upstream.auth_files({})[:1]] == [
        tmp_path / "run/containers/auth.json",
        own / "auth.json",
        tmp_path / ".docker/config.json",
        Path(f"/run/containers/{os.geteuid()}/auth.json"),
    ]
    assert upstream.of("q.test/web:1", "", runtime) is not None
    for name, content in (
        ("registries.conf", '[[registry]]\nlocation = "q.test"\n'),
        ("policy.json", '{"default": [{"type": "reject"}]}'),
        ("auth.json", '{"credsStore": "pass"}'),
        ("registries.conf", "not TOML"),
    ):
        (own / name).write_text(content)
        assert upstream.of("q.test/web:1", "", runtime) is None, name
        (own / name).unlink()


class Handler(BaseHTTPRequestHandler):
    """A registry whose tokens are given out at the door, and are good once."""

    asked: list[tuple[str, str]]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization") or ""
        self.asked.append((self.path, authorization))
        parts = urlsplit(self.path)
        if parts.path == "/token":
            query = parse_qs(parts.query)
            assert query == {"service": ["s"], "scope": ["repository:org/web:pull"]}
            tls_listener.answer(self, 200, {}, b'{"token": "t%d"}' % len(self.asked))
        elif authorization == f"Bearer t{len(self.asked) - 1}":
            tls_listener.answer(self, 200, {}, b"content")
        else:
            realm = f"https://{self.headers['Host']}/token"
            fields = f'realm="{realm}",service="s",scope="repository:org/web:pull"'
            headers = {"WWW-Authenticate": f"Bearer {fields}"}
            tls_listener.answer(self, 401, headers, b"")


@contextmanager
def registry(folder: Path) -> Iterator[tuple[upstream.Source, list[tuple[str, str]]]]:
    authority = Authority()
    certificate, key = authority.pair("registry")
    (folder / "crt").write_bytes(certificate)
    (folder / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    handler = type("Mine", (Handler,), {"asked": []})
    listener = tls_listener.Listener(context, handler)
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with tls_listener.serving(listener):
        basic = base64.b64encode(b"me:secret").decode()
        yield upstream.Source(f"localhost:{listener.port}", basic, trusting), handler.asked


def test_a_token_is_asked_for_with_the_credentials_and_again_when_it_is_over(
    tmp_path: Path,
) -> None:
    with registry(tmp_path) as (source, asked):
        for _ in range(2):
            with source.open("org/web/blobs/sha256:0", offset=5) as answer:
                assert answer.read() == b"content"
        tokens = [authorization for path, authorization in asked if path.startswith("/token")]
        assert len(tokens) == 2
        assert all(one.startswith("Basic ") for one in tokens)
        others = {authorization[:6] for path, authorization in asked if "/token" not in path}
        assert others == {"", "Bearer"}, "the registry itself never sees the password"
