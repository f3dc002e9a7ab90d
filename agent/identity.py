"""Who this device is: its key, the name that follows from the key, its management certificate.

The invariants:
- A key that cannot be used is never overwritten without a copy beside it; and while a certificate
  says that the device is enrolled, not even then: a new key is a new device, and whether that is
  wanted is for a person to say.
- `certs/agent.crt` is replaced by a certificate that fits the key, atomically, or not at all; a
  renewed one only after the service has answered a request that was made with it.
- What other threads see (`credentials`) is made from one immutable certificate and one key.
"""

from __future__ import annotations

import base64
import logging
import posixpath
from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent import authorities, child, config, errors, routes, tpmkeys, transport, world
from resources import timestamps
from resources.records import dataclass, replace

log = logging.getLogger("agent.identity")

Json = dict[str, Any]
Ask = Callable[[Json], Json]

PROOF_TIMEOUT_S = 30.0
UNAUTHORIZED = 401
COMPONENT = "identity"


class Unusable(ValueError):
    """A certificate that was given to us cannot be used with our key."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Facts about the management certificate; times in seconds since 1970."""

    pem: bytes
    common_name: str
    serial: str
    not_before: float
    not_after: float

    @property
    def lifetime_s(self) -> float:
        return self.not_after - self.not_before

    def is_expired(self, now: datetime) -> bool:
        return now.timestamp() >= self.not_after

    @property
    def not_after_text(self) -> str:
        return timestamps.of_seconds(self.not_after)


class Identity:
    """Opened once; `install` and `drop_certificate` are called by the contact thread only."""

    def __init__(
        self,
        where: world.World,
        settings: config.Settings,
        ask: Ask | None = None,
        *,
        tpm: tpmkeys.TpmKeys | None = None,
        connect: routes.Connect = transport.Client,
        remembered: Callable[[], config.Service | None] = lambda: None,
    ) -> None:
        self._world = where
        self._settings = settings
        if tpm is None and settings.tpm_enabled:
            tpm = tpmkeys.TpmKeys(where, settings)
        self.tpm = tpm
        self._ask = ask or self.tpm or child.ask
        self._connect = connect
        self.routes = routes.Routes(where.monotonic, settings.management, remembered)
        self._key_path = settings.management.key.path
        self._certificate_path = settings.management.certificate.path
        self._csr_path = f"{settings.certs_dir}/agent.csr"
        self._key = b""
        self.authorities = authorities.Authorities(where, f"{settings.certs_dir}/authorities.json")
        self.name = ""
        self.certificate: Certificate | None = None

    def open(self) -> None:
        """Loads or makes the key, and reads the certificate. Raises errors.Fatal."""
        self._world.mkdir(posixpath.dirname(self._key_path))
        raw = self._read(self._key_path)
        if raw is None:
            self._create("there was none")
        else:
            self._load(raw)
        self._open_certificate()

    @property
    def is_enrolled(self) -> bool:
        return self.certificate is not None

    def is_expired(self) -> bool:
        return self.certificate is not None and self.certificate.is_expired(self._world.now())

    def caller(self) -> routes.Caller:
        """To the management service, with whatever certificate is in use at each request."""
        return routes.Caller(self.routes, self.credentials, self._connect)

    def client(self, service: config.Service) -> transport.Client:
        """A connection of its own to one address of the service."""
        return self._connect(service.server, lambda: self.credentials(service))

    def credentials(self, service: config.Service | None = None) -> transport.Credentials:
        """For the management service; may be called from any thread, once enrolled."""
        certificate = self.certificate
        if certificate is None:
            raise transport.Unreachable("this device has no management certificate")
        return self.shown_to(service or self.routes.current, certificate.pem, self._key)

    def shown_to(
        self, service: config.Service, certificate: bytes, key: bytes
    ) -> transport.Credentials:
        """Credentials for `service`. Raises Unreachable if its authority can't be read."""
        return transport.Credentials(
            authority=self.authorities.of(service),
            certificate=certificate,
            key=key,
            server_name=service.server_name,
            insecure=service.insecure,
        )

    def request(self) -> str:
        """A certificate request for the key, PEM: under the name in the certificate that it is to
        follow, as renewal demands; else under the device's."""
        certificate = self.certificate
        return self._request(certificate.common_name if certificate else "")

    def _request(self, common_name: str) -> str:
        question = {"do": "request", "key": self._key.decode(), "commonName": common_name}
        return str(self._asked(question)["csr"])

    def pending_request(self) -> str:
        """The same for enrolment, with what the TPM says of the key if it is in one; kept where
        flightctl's agent keeps it until it is granted. Raises Unreachable for a TPM that fails."""
        if self.tpm is None:
            csr = self._request("")
            self._write(self._csr_path, csr.encode())
        else:
            csr = self.tpm.bundle(self._key)
            self._write(self._csr_path, base64.b64decode(csr))
        return csr

    def install(self, pem: str) -> Certificate:
        """Takes a granted certificate into use. Raises Unusable, and then nothing has changed."""
        return self._use(self._fresh(pem))

    def renew(self, pem: str) -> Certificate:
        """The same, once the service has answered a request with it: until then, and if it never
        does, the one in use stays. Raises Unusable, ServiceError, and then nothing has changed."""
        facts = self._fresh(pem)
        shown = replace(self.credentials(), certificate=facts.pem)
        if (refused := self._asked_service(shown)) is not None:
            raise Unusable(f"the service refuses the certificate that it gave: {refused}")
        return self._use(facts)

    def learn(self, pem: bytes) -> None:
        """Trust these authorities of the service from now on, if it can be reached under them."""
        service = self.routes.current
        try:
            if not self.authorities.is_news(service, pem):
                return
            self._asked_service(replace(self.credentials(), authority=pem))
            self.authorities.keep(service, pem)
        except (transport.ServiceError, OSError, UnicodeDecodeError) as error:
            log.warning("authorities of the service not taken: %s", error)
            return
        log.info("authorities of the service taken")

    def _asked_service(self, shown: transport.Credentials) -> str | None:
        """Why the service refuses these credentials; None = it does not. On a connection of its
        own; only the head of the answer is read. Raises Unreachable, Throttled."""
        client = self._connect(self.routes.current.server, lambda: shown)
        path = f"/devices/{self.name}/rendered"
        try:
            client.request("GET", path, timeout_s=PROOF_TIMEOUT_S, want_body=False)
        except transport.Rejected as error:
            # Anything but 401 is about the device, which the service has recognised.
            return str(error) if error.status == UNAUTHORIZED else None
        finally:
            client.close()
        return None

    def _fresh(self, pem: str) -> Certificate:
        facts = self._inspect(pem.encode())
        if facts.is_expired(self._world.now()):
            raise Unusable(f"the certificate expired at {facts.not_after_text}")
        return facts

    def _use(self, facts: Certificate) -> Certificate:
        self._write(self._certificate_path, facts.pem)
        self._world.remove(self._csr_path)
        self.certificate = facts
        return facts

    def drop_certificate(self) -> None:
        """The service knows this device no more. The key, and so the name, stay."""
        self._world.remove(self._certificate_path)
        self.certificate = None

    def forget_keys(self) -> None:
        """What of them is in no file of the data directory. Never raises: this device leaves."""
        if self.tpm is not None:
            self.tpm.forget()

    def _load(self, raw: bytes) -> None:
        try:
            answer = self._asked({"do": "describe", "key": raw.decode("ascii")})
        except (Unusable, UnicodeDecodeError) as error:
            if self._read(self._certificate_path):
                raise errors.Fatal(
                    errors.FAILED_PRECONDITION,
                    f"the key is damaged ({error}) and this device is enrolled; put the key back, "
                    f"or remove {self._certificate_path} to let it enrol as a new device",
                    component=COMPONENT,
                    element=self._key_path,
                ) from error
            self._write(f"{self._key_path}.unusable", raw)
            self._create(f"it could not be used ({error}) and is kept beside it")
            return
        self._key = raw
        self.name = str(answer["name"])

    def _create(self, why: str) -> None:
        key = str(self._asked({"do": "create"})["key"]).encode()
        self._write(self._key_path, key)
        self._load(key)
        log.warning("key created path=%s name=%s: %s", self._key_path, self.name, why)

    def _open_certificate(self) -> None:
        raw = self._read(self._certificate_path)
        if not raw:
            return
        try:
            self.certificate = self._inspect(raw)
        except Unusable as error:
            aside = f"{self._certificate_path}.unusable"
            self._write(aside, raw)
            self._world.remove(self._certificate_path)
            log.error("certificate set aside path=%s: %s", aside, error)
            return
        # A crash between the two steps of `install` leaves it.
        self._world.remove(self._csr_path)

    def _inspect(self, pem: bytes) -> Certificate:
        try:
            text = pem.decode("ascii")
        except UnicodeDecodeError as error:
            raise Unusable(f"not PEM: {error}") from error
        answer = self._asked({"do": "certificate", "certificate": text, "key": self._key.decode()})
        if not answer["fitsKey"]:
            raise Unusable("the certificate belongs to another key")
        return Certificate(
            pem, answer["commonName"], answer["serial"], answer["notBefore"], answer["notAfter"]
        )

    def _asked(self, question: Json) -> Json:
        answer = self._ask(question)
        if "error" in answer:
            raise Unusable(answer["error"])
        return answer

    def _read(self, path: str) -> bytes | None:
        try:
            return self._world.read(path)
        except OSError as error:
            # Not "there is none": a disk that does not answer must not cost the identity.
            raise errors.Fatal(
                errors.INTERNAL, f"cannot be read: {error}", component=COMPONENT, element=path
            ) from error

    def _write(self, path: str, data: bytes) -> None:
        uid, gid = self._world.uid_of("root"), self._world.gid_of("root")
        self._world.write(path, data, mode=0o600, uid=uid or 0, gid=gid or 0)
