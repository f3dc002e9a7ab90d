"""Enrolment: asking to be let in, with the shared certificate, until a person approves.

A round is one attempt to create the request (if it is not known to be there) and one look at it.
Rounds are repeated for ever, in this process, with a growing pause: a device in the field must not
need a restart because nobody was in the office. Only an explicit denial ends it.

Afterwards the enrolment credentials are not read again, unless the service forgets the device or
its certificate has expired. `enrollment-service.authentication.remove-after-enrollment: true` has
them removed, as befits a certificate that was made for this one device: by the time that it could
be of use again it would have expired. One that is shared and part of an image has to stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from agent import certificates, config, identity, labels, routes, transport, world
from resources.records import dataclass

log = logging.getLogger("agent.enrolling")

Json = dict[str, Any]

BACKOFF_FACTOR = 1.5
CREATED = frozenset({200, 201})
ALREADY_THERE = 409


class Refused(Exception):
    """A person said no; the text is why."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing to do but wait; `why` is for people, `after_s` what the service asked for."""

    why: str
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Granted:
    """A certificate, and the authorities of the service, if it names them."""

    pem: str
    authorities: bytes = b""


class Enrolling:
    """`facts` gives a complete device status, `known_version` what the device already runs."""

    def __init__(
        self,
        where: world.World,
        settings: config.Settings,
        who: identity.Identity,
        *,
        facts: Callable[[], Json],
        known_version: Callable[[], str],
        is_image_mode: bool = False,
        connect: routes.Connect = transport.Client,
    ) -> None:
        self._world = where
        self._settings = settings
        self._identity = who
        self._facts = facts
        self._known_version = known_version
        self._os_mode = "image" if is_image_mode else "package"
        ways = routes.Routes(where.monotonic, settings.enrollment)
        self.client = routes.Caller(ways, self._credentials, connect)
        self._is_asked = False
        self.on_asked: Callable[[], None] = lambda: None
        # Why there is no certificate yet, and the seconds until it is asked for again.
        self.on_waiting: Callable[[str, float], None] = lambda why, rest_s: None

    def run(self, pause: Callable[[float], bool]) -> bool:
        """Until there is a certificate (True), or `pause` says that the agent stops (False)."""
        delay_s = self._settings.enrollment_verify_interval_s
        said = ""
        while True:
            verdict = self.round()
            if verdict is None:
                return True
            if verdict.why != said:
                log.info("waiting for enrolment name=%s: %s", self._identity.name, verdict.why)
                said = verdict.why
            rest_s = max(delay_s, verdict.after_s)
            self.on_waiting(verdict.why, rest_s)
            if pause(rest_s):
                return False
            delay_s = min(delay_s * BACKOFF_FACTOR, self._settings.enrollment_verify_cap_s)

    def round(self) -> Pending | None:
        """One attempt; None = there is a certificate now. Raises Refused."""
        try:
            return self._round()
        except transport.Throttled as error:
            return Pending(str(error), error.after_s)
        except transport.ServiceError as error:
            return Pending(str(error))
        except OSError as error:
            # A full disk, say: what was not written is written in the next round.
            return Pending(f"{error.filename or 'the disk'}: {error.strerror or error}")
        finally:
            # The next round is many seconds away; meanwhile the connection is only a burden.
            self.client.close()

    def _round(self) -> Pending | None:
        if not self._is_asked:
            self._ask()
            self._is_asked = True
            self.on_asked()
        try:
            path = f"/enrollmentrequests/{quote(self._identity.name, safe='')}"
            document = self.client.get(path).document
            verdict = judged(document)
        except transport.Rejected as error:
            if error.status == 404:
                self._is_asked = False
                return Pending("the request is not there any more, it is made again")
            raise
        if isinstance(verdict, Pending):
            return self._proven(verdict) if is_unproven(document) else verdict
        try:
            facts = self._identity.install(verdict.pem)
        except identity.Unusable as error:
            # Asked anew: a service of ours opens the request again when its certificate expired.
            self._is_asked = False
            return Pending(
                f"approved, but {error}; if this stays so, delete the device and the enrolment "
                f"request {self._identity.name} to let it enrol again"
            )
        self._is_asked = False
        self._identity.learn(verdict.authorities)
        log.info("enrolled name=%s until=%s", self._identity.name, facts.not_after_text)
        return None

    def _proven(self, verdict: Pending) -> Pending:
        """The same, once the TPM has shown what it can. What goes wrong is tried again in the next
        round: another's wrong answer must not end this device's enrolment."""
        if self._identity.tpm is None:
            return verdict
        service = self.client.current
        shown = self._credentials(service)
        answer = self._identity.tpm.prove(service.server, shown, self._identity.name)
        outcome, message = answer["outcome"], answer["message"]
        if outcome == "proved":
            log.info("the service has verified the TPM: %s", message)
            return verdict
        log.warning("the service has not verified the TPM: %s: %s", outcome, message)
        return Pending(f"{verdict.why}; the TPM is not verified: {message}", verdict.after_s)

    def _ask(self) -> None:
        facts = self._facts()
        proposed, complaints = labels.proposed(
            facts["systemInfo"],
            self._settings.label_from_system_info,
            self._settings.default_labels,
        )
        for complaint in complaints:
            log.warning("label left out: %s", complaint)
        spec: Json = {
            "csr": self._identity.pending_request(),
            "deviceStatus": facts,
            "labels": proposed,
            "osMode": self._os_mode,
        }
        known = self._known_version()
        if known:
            spec["knownRenderedVersion"] = known
        document = {
            "apiVersion": transport.API_VERSION,
            "kind": "EnrollmentRequest",
            "metadata": {"name": self._identity.name},
            "spec": spec,
        }
        try:
            self.client.request("POST", "/enrollmentrequests", body=document)
        except transport.Rejected as error:
            if error.status != ALREADY_THERE:
                raise

    def forget_credentials(self) -> None:
        """Removes certificate and key where the configuration allows it and they are files of their
        own. To be called when the service has answered the device's own certificate, and again
        whenever it has: what a crash left is gone then."""
        if not self._settings.remove_after_enrollment:
            return
        service = self._settings.enrollment
        # The key first: of the two it is the secret.
        for pem in (service.key, service.certificate):
            try:
                if not pem.data and self._world.stat(pem.path) is not None:
                    self._world.shred(pem.path)
                    log.info("enrolment credentials removed path=%s", pem.path)
            except OSError as error:
                log.warning("enrolment credentials stay path=%s: %s", pem.path, error)

    def _credentials(self, service: config.Service) -> transport.Credentials:
        try:
            certificate = service.certificate.load(self._world)
            key = service.key.load(self._world)
        except OSError as error:
            raise transport.Unreachable(f"enrolment credentials cannot be read: {error}") from error
        if not certificate or not key:
            missing = service.certificate if not certificate else service.key
            why = f"no enrolment credentials: {missing.path} is missing"
            if self._settings.remove_after_enrollment:
                why += " (removed after an enrolment; provision new ones)"
            raise transport.Unreachable(why)
        return self._identity.shown_to(service, certificate, key)


def is_unproven(document: Any) -> bool:
    """Whether the service asks for a proof of the TPM that it has not had yet."""
    status = document.get("status") if isinstance(document, dict) else None
    for condition in (status.get("conditions") if isinstance(status, dict) else None) or ():
        if isinstance(condition, dict) and condition.get("type") == "TPMVerified":
            is_final = condition.get("reason") == "TPMVerificationFailed"
            return condition.get("status") != "True" and not is_final
    return False


def judged(document: Any) -> Pending | Granted:
    """What an enrolment request says. Raises Refused.

    The presence of a condition counts, not its status: so existing services and agents read it.
    """
    status = document.get("status") if isinstance(document, dict) else None
    conditions = status.get("conditions") if isinstance(status, dict) else None
    found = {
        condition.get("type"): condition
        for condition in conditions or ()
        if isinstance(condition, dict)
    }
    for kind in ("Denied", "Failed"):
        if kind in found:
            words = found[kind].get("message") or found[kind].get("reason") or "no reason given"
            raise Refused(f"enrolment {kind.lower()}: {words}")
    if "Approved" not in found:
        return Pending("waiting for approval")
    assert isinstance(status, dict)
    pem = status.get("certificate")
    if not isinstance(pem, str) or not pem.strip():
        return Pending("approved, waiting for the certificate")
    return Granted(pem, certificates.authorities_in(status))
