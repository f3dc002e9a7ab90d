"""Who is logged in where: tokens in a file each, for their owner alone, renewed when they end.

A service has one session on a machine. Two commands at once must not both renew it, since a
provider may take a refresh token once only; so it is done under a lock, by whoever comes first.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cli import private
from cli.problems import Problem

Json = dict[str, Any]

# A token that ends sooner is renewed: it must last until the server has looked at it.
LEFT_LEAST_S = 60.0
TIMEOUT_S = 30.0


class NotLoggedIn(Problem):
    """There is no token that could be used; the hint says how to get one."""

    def __init__(self, message: str, server: str) -> None:
        super().__init__(message, f"log in: homeport login {server}")


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is reached. `authority` is PEM, empty for those that the machine trusts."""

    server: str
    authority: str = ""

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority or None)

    def ask(self, path: str, form: Mapping[str, str] | None = None) -> tuple[int, Json]:
        """Status and JSON of `/api/v1/auth/PATH`; a POST with a form. Raises Problem."""
        parts = urlsplit(self.server)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, context=self.context(), timeout=TIMEOUT_S
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        body = urlencode(form) if form else None
        try:
            connection.request(
                "POST" if form else "GET", f"{parts.path}/api/v1/auth/{path}", body, headers
            )
            answer = connection.getresponse()
            found = json.loads(answer.read())
        except ssl.SSLCertVerificationError as error:
            raise Problem(
                f"{self.server} can't be trusted: {error.verify_message}",
                "name the authority of its certificate with --certificate-authority FILE",
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Problem(f"no usable answer from {self.server}: {error}") from error
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise Problem(f"no usable answer from {self.server}")
        return answer.status, found


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `token` is what the service is shown, and `token_name` what providers call it;
    without `refresh` it can't be renewed. `ends` is in seconds since the epoch."""

    server: str
    token: str
    authority: str = ""
    provider: str = ""
    client_id: str = ""
    refresh: str = ""
    token_name: str = "id_token"  # noqa: S105 - no password
    ends: float | None = None

    def __repr__(self) -> str:
        return f"Session({self.server})"

    @property
    def service(self) -> Service:
        return Service(self.server, self.authority)

    @property
    def ends_at(self) -> float | None:
        """Seconds since the epoch; None if neither its provider nor the token says it."""
        if self.ends is not None:
            return self.ends
        try:
            payload = self.token.split(".")[1]
            ends = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        except (IndexError, ValueError, KeyError, TypeError):
            return None
        return float(ends) if isinstance(ends, int | float) else None

    def renewed_by(self, answer: Json) -> Session | None:
        """With what a provider gave; None if there is no token among it."""
        token, lasts_s = answer.get(self.token_name), answer.get("expires_in")
        if not isinstance(token, str):
            return None
        ends = None
        # It is the access token's; an identity token says its own.
        if self.token_name == "access_token" and isinstance(lasts_s, int | float):  # noqa: S105
            ends = time.time() + lasts_s
        refresh = answer.get("refresh_token") or self.refresh
        return replace(self, token=token, refresh=refresh, ends=ends)

    def lasts(self, now: float) -> bool:
        return self.ends_at is None or now < self.ends_at - LEFT_LEAST_S


def folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "homeport" / "sessions"


def path_of(server: str) -> Path:
    return folder() / f"{hashlib.sha256(server.encode()).hexdigest()[:16]}.json"


def load(server: str) -> Session:
    """Raises NotLoggedIn."""
    try:
        return Session(**json.loads(path_of(server).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NotLoggedIn(f"nobody is logged in at {server}", server) from error


def save(session: Session) -> None:
    private.write(path_of(session.server), json.dumps(asdict(session)))


def forget(server: str) -> bool:
    """Whether there was one."""
    path = path_of(server)
    is_there = path.exists()
    path.unlink(missing_ok=True)
    return is_there


def fresh(server: str) -> Session:
    """The session, renewed if its token ends soon. Raises NotLoggedIn, Problem."""
    session = load(server)
    if session.lasts(time.time()):
        return session
    with path_of(server).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session = load(server)
        if not session.lasts(time.time()):
            session = _renewed(session)
            save(session)
    return session


def _renewed(session: Session) -> Session:
    if not session.refresh:
        raise NotLoggedIn(f"the login at {session.server} has ended", session.server)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": session.refresh,
        "client_id": session.client_id,
    }
    status, answer = session.service.ask(f"{quote(session.provider, safe='')}/token", form)
    renewed = session.renewed_by(answer) if status == 200 else None
    if renewed is None:
        why = answer.get("error_description") or answer.get("error") or answer.get("message")
        raise NotLoggedIn(f"the login at {session.server} was not renewed: {why}", session.server)
    return renewed
