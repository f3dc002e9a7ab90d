"""Renewal of the management certificate, long before it ends and with the same key.

Due after two thirds of its life, give or take a tenth, so that a fleet enrolled in one hour does
not come back in one hour; and when the service says so, because another authority signs now, at a
moment of our own within the time that it gives. Level-triggered: each `step` looks at the
certificate in use and does at most one thing; what was under way before a restart is simply begun
again, and the service keeps both requests. The new certificate is used once a request with it was
answered; one that is refused or unusable changes nothing.

The key stays, since it is who the device is: its name is made of it, and a device that must enrol
again does so under its old name.

An expired certificate cannot renew itself; see `contact` for what happens then.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from agent import identity, metrics, routes, transport, world

log = logging.getLogger("agent.certificates")

Json = dict[str, Any]

SIGNER = "flightctl.io/device-management-renewal"
USAGES = ["clientAuth", "CA:false"]
DUE_AFTER = 2 / 3
SPREAD = 0.1
RETRY_S = 600.0
RETRY_S_MAX = 1800.0
REFUSED_S = 3600.0
# Short-lived certificates (tests, careful sites) cannot wait ten minutes for the next attempt.
RETRIES_IN_A_LIFE = 50
RETRY_S_MIN = 2.0


class Renewing:
    """Called between two polls, by the thread that polls."""

    def __init__(self, where: world.World, who: identity.Identity, client: routes.Caller) -> None:
        self._world = where
        self._identity = who
        self._client = client
        # Drawn once for each process: the same share of every certificate's life.
        self._spread = 1 + SPREAD * (2 * where.random() - 1)
        self._pending = ""
        self._next_at = 0.0
        self._delay_s = 0.0
        self._hurried_at: float | None = None
        # The result in the words of `metrics`, and the seconds that the attempt took.
        self.on_attempt: Callable[[str, float], None] = lambda result, seconds: None

    def hurry(self, within_s: float | None) -> None:
        """What the service said with its last answer; None = nothing, and so it is not due."""
        if within_s is None:
            self._hurried_at = None
        elif self._hurried_at is None:
            self._hurried_at = self._world.monotonic() + self._world.random() * within_s

    def due_at(self, certificate: identity.Certificate) -> float:
        """Seconds since 1970."""
        return certificate.not_before + certificate.lifetime_s * DUE_AFTER * self._spread

    def step(self) -> bool:
        """Does what is due; True = another certificate is in use now."""
        certificate = self._identity.certificate
        if certificate is None or not self._is_due(certificate):
            return False
        begun = self._world.monotonic()
        if begun < self._next_at:
            return False
        result = self._attempt(certificate)
        self.on_attempt(result, self._world.monotonic() - begun)
        return result == metrics.SUCCESS

    def _attempt(self, certificate: identity.Certificate) -> str:
        try:
            document = self._look() if self._pending else self._ask()
            pem = judged(document)
            if pem is None:
                self._again(certificate, "not signed yet")
                return metrics.PENDING
            facts = self._identity.renew(pem)
        except (Denied, identity.Unusable) as error:
            log.error("certificate not renewed: %s", error)
            self._pending = ""
            self._next_at = self._world.monotonic() + self._shortest(certificate, REFUSED_S)
            return metrics.FAILURE
        except transport.ServiceError as error:
            if isinstance(error, transport.Rejected):
                self._pending = ""
            self._again(certificate, str(error))
            return metrics.FAILURE
        except OSError as error:
            # It is signed, and fetched again when there is room for it.
            self._again(certificate, f"not kept: {error}")
            return metrics.FAILURE
        self._pending, self._delay_s, self._next_at = "", 0.0, 0.0
        self._hurried_at = None
        self._identity.learn(authorities_in(document["status"]))
        log.info("certificate renewed serial=%s until=%s", facts.serial, facts.not_after_text)
        return metrics.SUCCESS

    def _is_due(self, certificate: identity.Certificate) -> bool:
        hurried_at = self._hurried_at
        is_hurried = hurried_at is not None and self._world.monotonic() >= hurried_at
        return is_hurried or self._world.now().timestamp() >= self.due_at(certificate)

    def _ask(self) -> Any:
        name = f"{self._identity.name}-{int(self._world.random() * 2**32):08x}"
        request = base64.b64encode(self._identity.request().encode()).decode()
        document = {
            "apiVersion": transport.API_VERSION,
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"request": request, "signerName": SIGNER, "usages": USAGES},
        }
        answer = self._client.request("POST", "/certificatesigningrequests", body=document)
        self._pending = name
        is_signed = judged(answer.document) is not None
        return answer.document if is_signed else self._look()

    def _look(self) -> Any:
        path = f"/certificatesigningrequests/{quote(self._pending, safe='')}"
        return self._client.get(path).document

    def _again(self, certificate: identity.Certificate, why: str) -> None:
        first = self._shortest(certificate, RETRY_S)
        self._delay_s = min(max(first, self._delay_s * 2), RETRY_S_MAX)
        wait_s = self._delay_s * (1 + SPREAD * (2 * self._world.random() - 1))
        self._next_at = self._world.monotonic() + wait_s
        log.warning("certificate not renewed yet, again in %.0f s: %s", wait_s, why)

    def _shortest(self, certificate: identity.Certificate, seconds: float) -> float:
        return max(RETRY_S_MIN, min(seconds, certificate.lifetime_s / RETRIES_IN_A_LIFE))


class Denied(Exception):
    """A person or a signer said no."""


def judged(document: Any) -> str | None:
    """The PEM text of a signed request; None = not yet. Raises on a denial."""
    status = document.get("status") if isinstance(document, dict) else None
    if not isinstance(status, dict):
        return None
    is_approved = False
    for condition in status.get("conditions") or ():
        if not isinstance(condition, dict) or condition.get("status") != "True":
            continue
        if condition.get("type") in ("Denied", "Failed"):
            raise Denied(f"{condition['type']}: {condition.get('message') or 'no reason given'}")
        is_approved = is_approved or condition.get("type") == "Approved"
    raw = status.get("certificate")
    if not is_approved or not isinstance(raw, str) or not raw:
        return None
    try:
        return base64.b64decode(raw, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise identity.Unusable(f"not base64 of PEM: {error}") from error


def authorities_in(status: Json) -> bytes:
    """What the service says is to be trusted as itself, PEM; empty where it says nothing."""
    raw = status.get("caBundle")
    try:
        return base64.b64decode(raw, validate=True) if isinstance(raw, str) else b""
    except binascii.Error:
        return b""
