"""A request's way to its certificate, with signers and people of several minds."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli import certificates
from cli.client import Client, Refused

Json = dict[str, Any]
END = datetime(2030, 1, 1, tzinfo=UTC)


def signed(request: str) -> str:
    csr = x509.load_pem_x509_csr(base64.b64decode(request))
    ours = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(x509.Name([]))
        .public_key(csr.public_key())
        .serial_number(7)
        .not_valid_before(END - timedelta(days=1))
        .not_valid_after(END)
        .sign(ours, hashes.SHA256())
    )
    return base64.b64encode(leaf.public_bytes(serialization.Encoding.PEM)).decode()


class Signing:
    """A service with one request. `approves`: by itself; `lets`: the requester; `issues_after`: so
    many looks at an approved one."""

    def __init__(self, *, approves: bool = True, lets: int = 200, issues_after: int = 0) -> None:
        self.approves, self.lets, self.left = approves, lets, issues_after
        self.request: Json = {}
        self.asked: list[str] = []

    def ask(self, method: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        self.asked.append(f"{method} {path.removeprefix(certificates.GROUP)}")
        if path.endswith("/enrollmentconfig"):
            return {"enrollment-service": {"authentication": {"client-key-data": ""}}}
        if method == "POST":
            self.request = {**(body or {}), "status": {"conditions": []}}
            if self.approves:
                self._say("Approved")
        elif path.endswith("/approval"):
            if self.lets != 200:
                raise Refused(self.lets, "Forbidden", "no")
            self._say("Approved")
        if any(c["type"] == "Approved" for c in self.request["status"]["conditions"]):
            if self.left == 0:
                self.request["status"]["certificate"] = signed(self.request["spec"]["request"])
            self.left -= 1
        return self.request

    def _say(self, kind: str, message: str = "") -> None:
        condition = {"type": kind, "status": "True", "message": message}
        self.request["status"]["conditions"].append(condition)


def ask(service: Signing, timeout_s: float = 5.0) -> certificates.Issued:
    return certificates.request(
        cast(Client, service),
        "default",
        base="line-4",
        signer="enrollment",
        lifetime_s=3600,
        timeout_s=timeout_s,
    )


def test_the_key_is_that_of_the_certificate_and_was_sent_to_nobody() -> None:
    service = Signing()
    issued = ask(service)
    assert issued.until == END
    assert issued.name.startswith("line-4-")
    assert service.request["spec"]["expirationSeconds"] == 3600
    shown = issued.settings["enrollment-service"]["authentication"]
    pem = base64.b64decode(shown["client-key-data"])
    key = serialization.load_pem_private_key(pem, None)
    csr = x509.load_pem_x509_csr(base64.b64decode(service.request["spec"]["request"]))
    assert csr.public_key() == key.public_key()
    assert b"PRIVATE" not in str(service.request).encode()


def test_what_nobody_approved_is_approved_by_who_asked_if_he_may() -> None:
    service = Signing(approves=False)
    ask(service)
    assert [line for line in service.asked if line.startswith("PUT")] == [
        f"PUT /namespaces/default/certificatesigningrequests/{service.request['metadata']['name']}"
        "/approval"
    ]


def test_a_signer_that_takes_its_time_is_waited_for() -> None:
    assert ask(Signing(issues_after=2)).until == END


@pytest.mark.parametrize(
    ("service", "waits_for"),
    [
        (Signing(approves=False, lets=403), "somebody's approval"),
        (Signing(issues_after=99), "its signer"),
    ],
)
def test_who_waited_in_vain_is_told_for_whom(service: Signing, waits_for: str) -> None:
    with pytest.raises(certificates.NotIssued, match=waits_for):
        ask(service, timeout_s=0.6)


@pytest.mark.parametrize("kind", ["Denied", "Failed"])
def test_a_refusal_says_why(kind: str) -> None:
    service = Signing(approves=False, lets=403)
    original = service.ask

    def refusing(method: str, path: str, **more: Any) -> Json:
        answer = original(method, path, **more)
        service._say(kind, "not today")
        return answer

    service.ask = refusing  # type: ignore[method-assign]
    with pytest.raises(certificates.NotIssued, match=f"was {kind.lower()}: not today"):
        ask(service)


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604_800), ("12h", 43_200), ("1d12h", 129_600), ("2w", 1_209_600)]
)
def test_lifetimes_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert certificates.lifetime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "7 d", "-1d", "1.5d", "d"])
def test_other_lifetimes_are_refused(text: str) -> None:
    with pytest.raises(certificates.BadLifetime):
        certificates.lifetime_s(text)


class Revoking:
    """A service that has one device."""

    def __init__(self) -> None:
        self.made: list[Json] = []

    def ask(self, method: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        if method == "GET" and not path.endswith("/devices/pump"):
            raise Refused(404, "NotFound", "no such device")
        if body is not None:
            self.made.append(body)
        return {"metadata": {"name": "pump-x"}}


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ({"device": "pump"}, {"device": "pump"}),
        ({"device": "device/pump", "reason": "stolen"}, {"device": "pump", "reason": "stolen"}),
        ({"serial": "0A:FF"}, {"serial": "0A:FF"}),
    ],
)
def test_a_revocation_names_a_device_or_a_serial_number(words: Json, spec: Json) -> None:
    service = Revoking()
    given = {"device": "", "serial": "", "reason": ""} | words
    assert certificates.revoke(cast(Client, service), "default", **given) == "pump-x"
    assert service.made[0]["spec"] == spec


def test_a_device_that_is_not_there_is_not_revoked_in_anothers_place() -> None:
    service = Revoking()
    with pytest.raises(Refused):
        certificates.revoke(cast(Client, service), "default", device="pum", serial="", reason="")
    assert service.made == []
