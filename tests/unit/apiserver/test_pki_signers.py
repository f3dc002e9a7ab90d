"""The signers' rules, as the contract's table has them (behaviour.md 8.3)."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver.pki import requests, signers
from apiserver.pki.extensions import PeerIdentity
from apiserver.pki.requests import Refused, SigningRequest
from tests.fakes.agent_client import fingerprint, signing_request

KEY = ec.derive_private_key(42, ec.SECP256R1())
NAME = fingerprint(KEY)
ORGANIZATION = UUID(int=1)


def peer(signer: str = signers.DEVICE_ENROLLMENT, name: str = f"device:{NAME}") -> PeerIdentity:
    return PeerIdentity(signer, ORGANIZATION, name, name, 1)


DEVICE = peer()
RENEWED = peer(signers.RENEWAL)
FACTORY = peer(signers.ENROLLMENT, "client-enrollment-x")


def request(common_name: str) -> SigningRequest:
    return requests.parse(signing_request(KEY, common_name).encode())


@pytest.mark.parametrize(
    ("signer", "common_name", "who", "text"),
    [
        pytest.param(signers.ENROLLMENT, "x", None, "", id="enrolment, by a user"),
        pytest.param(signers.ENROLLMENT, "x", DEVICE, "users", id="enrolment, by a device"),
        pytest.param(signers.ENROLLMENT, "device:x", None, "reserved", id="reserved prefix"),
        pytest.param(signers.SVC_CLIENT, "device:x", DEVICE, "reserved", id="reserved for svc too"),
        pytest.param(signers.RENEWAL, f"device:{NAME}", DEVICE, "", id="renewal"),
        pytest.param(signers.RENEWAL, f"device:{NAME}", RENEWED, "", id="renewal again"),
        pytest.param(signers.RENEWAL, NAME, DEVICE, "", id="renewal as it enrolled"),
        pytest.param(signers.RENEWAL, "device:x", DEVICE, "own", id="renewal of another"),
        pytest.param(signers.RENEWAL, "", DEVICE, "own", id="renewal of nobody"),
        pytest.param(signers.RENEWAL, f"device:{NAME}", None, "only a device", id="by a user"),
        pytest.param(signers.RENEWAL, "client-enrollment-x", FACTORY, "own", id="by a factory"),
        pytest.param(signers.SVC_CLIENT, f"svc-telemetry-{NAME}", DEVICE, "", id="service"),
        pytest.param(signers.SVC_CLIENT, "svc-telemetry-x", DEVICE, "end with", id="other's"),
        pytest.param(signers.SVC_CLIENT, f"svc-{NAME}", None, "only a device", id="svc, user"),
        pytest.param(
            signers.DEVICE_ENROLLMENT, f"device:{NAME}", None, "EnrollmentRequest", id="er"
        ),
        pytest.param(signers.SERVER_SVC, "svc-x", None, "server", id="server"),
        pytest.param("ca", "x", None, "removed", id="ca"),
        pytest.param("x", "x", None, "unknown", id="unknown"),
    ],
)
def test_who_may_ask_whom(
    signer: str, common_name: str, who: PeerIdentity | None, text: str
) -> None:
    if not text:
        signers.verify(signer, request(common_name), who)
        return
    with pytest.raises(Refused, match=text):
        signers.verify(signer, request(common_name), who)


def test_a_management_certificate_carries_the_whole_common_name_as_its_fingerprint() -> None:
    granted = signers.grant(
        signers.DEVICE_ENROLLMENT, request(NAME), name=NAME, organization=ORGANIZATION, peer=None
    )
    assert granted.common_name == granted.fingerprint == f"device:{NAME}"
    assert granted.lifetime == timedelta(days=365)


def test_a_service_certificate_carries_the_bare_name() -> None:
    granted = signers.grant(
        signers.SVC_CLIENT,
        request(f"svc-{NAME}"),
        name="any",
        organization=ORGANIZATION,
        peer=DEVICE,
    )
    assert (granted.common_name, granted.fingerprint) == (f"svc-{NAME}", NAME)


@pytest.mark.parametrize("common_name", ["mine", "client-enrollment-mine"])
@pytest.mark.parametrize("name", ["mine", "client-enrollment-mine"])
def test_enrolment_names_get_their_prefix_once(common_name: str, name: str) -> None:
    granted = signers.grant(
        signers.ENROLLMENT, request(common_name), name=name, organization=ORGANIZATION, peer=None
    )
    assert granted.common_name == "client-enrollment-mine"
    assert granted.fingerprint is None


@pytest.mark.parametrize(
    ("signer", "asked_s", "given"),
    [
        (signers.ENROLLMENT, None, timedelta(days=365)),
        (signers.ENROLLMENT, 10 * 365 * 86_400, timedelta(days=3650)),
        (signers.ENROLLMENT, 60, timedelta(minutes=1)),
        (signers.RENEWAL, None, timedelta(days=365)),
        (signers.RENEWAL, 10 * 365 * 86_400, timedelta(days=365)),
        (signers.RENEWAL, 60, timedelta(minutes=1)),
    ],
)
def test_lifetimes(signer: str, asked_s: int | None, given: timedelta) -> None:
    name = "mine" if signer == signers.ENROLLMENT else f"device:{NAME}"
    granted = signers.grant(
        signer,
        request(name),
        name="mine",
        organization=ORGANIZATION,
        peer=DEVICE,
        expiration_s=asked_s,
    )
    assert granted.lifetime == given


def test_a_request_that_names_another_organisation_is_not_signed() -> None:
    named = SigningRequest(request("mine").csr, "mine", UUID(int=2))
    with pytest.raises(Refused, match="another organisation"):
        signers.grant(signers.ENROLLMENT, named, name="mine", organization=ORGANIZATION, peer=None)


@pytest.mark.parametrize(
    ("usages", "good"),
    [
        (["clientAuth", "CA:false"], True),
        (["CA:false", "clientAuth", "digitalSignature"], True),
        (["clientAuth"], False),
        ([], False),
    ],
)
def test_usages(usages: list[str], good: bool) -> None:
    if good:
        signers.verify_usages(usages)
        return
    with pytest.raises(Refused):
        signers.verify_usages(usages)
