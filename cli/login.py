"""Logins: by a browser on this machine, or by a code that is taken to one elsewhere.

The browser's way is the authorisation code with PKCE, sent back to a port of the loopback that
lives as long as the login (RFC 8252 §7.3, RFC 7636); the other is RFC 8628. What a code is worth
is exchanged by the service, which has the client secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import secrets
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from cli.problems import Problem
from cli.sessions import Service, Session

Json = dict[str, Any]
Say = Callable[[str], None]

PATIENCE_S = 300.0
TIMEOUT_S = 30.0
POLL_S, SLOWER_S = 5.0, 5.0
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES = ("openid", "profile", "offline_access")


def provider(service: Service, name: str = "") -> Json:
    """The AuthProvider of that name; without one the default, or the only one. Raises Problem."""
    status, config = service.ask("config")
    if status != 200:
        raise Problem(f"{service.server} takes no logins: {config.get('message', status)}")
    # Of two with one name the service means the first.
    found = {each["metadata"]["name"]: each for each in reversed(config.get("providers") or [])}
    if not found:
        raise Problem(
            f"{service.server} knows no identity provider",
            "an administrator can apply an AuthProvider; certificates and --token need none",
        )
    wanted = name or config.get("defaultProvider") or (next(iter(found)) if len(found) == 1 else "")
    if wanted not in found:
        there = ", ".join(sorted(found))
        said = f'there is no identity provider "{name}"' if name else "there are several providers"
        raise Problem(f"{said}: choose one of {there}", "homeport login URL --provider NAME")
    chosen: Json = found[wanted]
    if chosen["spec"].get("providerType") == "k8s":
        raise Problem(
            f"{wanted} takes tokens of its cluster, and has no login",
            f"kubectl create token SERVICEACCOUNT | homeport login {service.server} --token -",
        )
    return chosen


def by_browser(service: Service, chosen: Json, show: Say) -> Session:
    """`show` is given the address at which the person logs in. Raises Problem."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    state = secrets.token_urlsafe(24)
    with _Return(state) as back:
        asked = {
            "response_type": "code",
            "client_id": chosen["spec"]["clientId"],
            "redirect_uri": back.address,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            # Without it some give no token to renew the login by.
            "prompt": "consent",
        }
        show(_with_query(_login_page(chosen), asked | _scope(chosen)))
        code = back.wait(PATIENCE_S)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back.address,
            "code_verifier": verifier,
        }
        status, answer = _asked(service, chosen, "token", form)
    return _session(service, chosen, status, answer)


def by_code(service: Service, chosen: Json, say: Say) -> Session:
    """Raises Problem."""
    status, begun = _asked(service, chosen, "device", _scope(chosen))
    if status != 200:
        raise Problem(f"the provider begins no login by code: {_why(begun)}")
    say(f"Open {begun['verification_uri']} in a browser anywhere, and enter {begun['user_code']}")
    if whole := begun.get("verification_uri_complete"):
        say(f"or open {whole}")
    every_s = float(begun.get("interval", POLL_S))
    ends_at = time.monotonic() + float(begun.get("expires_in", PATIENCE_S))
    form = {"grant_type": DEVICE_CODE, "device_code": begun["device_code"]}
    while time.monotonic() < ends_at:
        time.sleep(every_s)
        status, answer = _asked(service, chosen, "token", form)
        if status == 200 or answer.get("error") not in ("authorization_pending", "slow_down"):
            return _session(service, chosen, status, answer)
        if answer["error"] == "slow_down":
            every_s += SLOWER_S
    raise Problem("nobody entered the code in time")


def _is_opaque(chosen: Json) -> bool:
    """Whether its tokens say nothing to anybody else (OAuth 2)."""
    return bool(chosen["spec"].get("providerType") == "oauth2")


def _scope(chosen: Json) -> dict[str, str]:
    usual = () if _is_opaque(chosen) else SCOPES
    scope = " ".join(chosen["spec"].get("scopes") or usual)
    return {"scope": scope} if scope else {}


def _asked(service: Service, chosen: Json, path: str, form: dict[str, str]) -> tuple[int, Json]:
    name = quote(chosen["metadata"]["name"], safe="")
    return service.ask(f"{name}/{path}", form | {"client_id": chosen["spec"]["clientId"]})


def _session(service: Service, chosen: Json, status: int, answer: Json) -> Session:
    if status != 200:
        raise Problem(f"the login was refused: {_why(answer)}")
    session = Session(
        server=service.server,
        token="",
        authority=service.authority,
        provider=chosen["metadata"]["name"],
        client_id=chosen["spec"]["clientId"],
        token_name="access_token" if _is_opaque(chosen) else "id_token",
    ).renewed_by(answer)
    if session is None:
        raise Problem(
            "the provider gave no token",
            'the scopes of an AuthProvider of type oidc must have "openid"',
        )
    return session


def _why(answer: Json) -> str:
    return str(answer.get("error_description") or answer.get("error") or answer.get("message"))


def _login_page(chosen: Json) -> str:
    """Where a browser begins. Raises Problem."""
    if _is_opaque(chosen):
        return str(chosen["spec"]["authorizationUrl"])
    url = f"{chosen['spec']['issuer'].rstrip('/')}/.well-known/openid-configuration"
    if not url.startswith(("https://", "http://")):
        raise Problem(f"the identity provider is at no address of the web: {url}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - seen above
            return str(json.load(answer)["authorization_endpoint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"the identity provider can't be reached: {url}: {error}") from error


def _with_query(url: str, query: dict[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


class _Return:
    """The port of the loopback to which the browser comes back."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._said: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                said = {key: values[0] for key, values in parse_qs(parts.query).items()}
                is_ours = parts.path == "/callback" and outer._take(said)
                words = _PAGE if is_ours else "This is not the login that is under way."
                body = f"<!doctype html><title>Homeport</title><p>{html.escape(words)}".encode()
                self.send_response(200 if is_ours else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> _Return:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/callback"

    def _take(self, said: dict[str, str]) -> bool:
        # Whoever else finds the port does not know the state.
        if not hmac.compare_digest(said.get("state", "").encode(), self._state.encode()):
            return False
        self._said = said
        return True

    def wait(self, patience_s: float) -> str:
        """The code. Raises Problem."""
        ends_at = time.monotonic() + patience_s
        while not self._said:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise Problem("nobody logged in in time", "where there is no browser: --device")
            self._server.timeout = left
            self._server.handle_request()
        if code := self._said.get("code"):
            return code
        raise Problem(f"the login was refused: {_why(self._said)}")


_PAGE = "You are logged in. This page can be closed."
