"""Key, name, request and certificate of a device."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from agent import child, config, configfiles, errors, identity, keys, transport
from tests.fakes.clocked_world import START, ClockedWorld
from tests.fakes.service import Authority

KEY = "/var/lib/flightctl/certs/agent.key"
CERTIFICATE = "/var/lib/flightctl/certs/agent.crt"
CSR = "/var/lib/flightctl/certs/agent.csr"
LONG = timedelta(days=3650)

# Computed with P-256 arithmetic and base32hex written out by hand, without any library: the
# public keys of the scalars 1, 43 (Y begins with a zero byte) and 379 (X does).
EC_NAMES = {
    1: "r1qtmvff4ch3dbm7733b1epug0a2un8fr3qdu97uqrnfbitl1mfg",
    43: "sl6cls5g2vp5gf6fch16i81ncjcqh0sqiham1lbjjih6gtbadqtg",
    379: "nhaumep7ufddl17ula72jl94i7ef7kq6054i3hoiii0gsggfvb6g",
}
RSA_MODULUS = (
    "D46884844727F6040D004533ABC87D768B70F2CA4374DE35BF04B7559E0F4EAC"
    "6D71CF6EB9D98A081D72B39368B733D9B5761B12C044D723D5529F90EFAB25BC"
    "0E4A2A462A5B1B708487A2BA6D1DAC249998BA2E7CADA5F2AEDB4EA581D7D7A6"
    "7DB9BBA379B6E5307F38EE740800D809C56A58D9450A6A5D405028633ADFE99C"
    "B6738EA96EF8592C98BA5E5BE5EEE7B82C75C44168D7A6FADA423B50063EF839"
    "A3B907D7DD4CA8013EE6160DE3C5FB7661E4FBC48795E0C40D54C80660EA0994"
    "E278C650C3161596BD817B7B9875B9C23DFD2757B4ED56AA9EA8BDFDC454D593"
    "1F6039408AEFC3D32BAC98969767A63C1C6BA9A1FC6A8B333B3F77DD0987F9E1"
)
RSA_NAME = "7duhras980036oiot1njssaq7q069lmpi4cb04qlk92e5dis2hh0"


def pem(key: Any, form: Any = serialization.PrivateFormat.PKCS8) -> bytes:
    raw = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert isinstance(raw, bytes)
    return raw


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    device = ClockedWorld(tmp_path)
    device.put(config.CONFIG_FILE, "")
    device.put("/etc/flightctl/certs/ca.crt", "CA")
    device.offset_s = (datetime.now(UTC) - START).total_seconds()
    return device


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def opened(device: ClockedWorld) -> identity.Identity:
    who = identity.Identity(device, configfiles.load(device), keys.answer)
    who.open()
    return who


def granted(who: identity.Identity, authority: Authority, **signing: Any) -> str:
    raw = authority.sign(who.request().encode(), f"device:{who.name}", **signing)
    return raw.decode()


@pytest.mark.parametrize("scalar", EC_NAMES)
def test_the_name_is_the_fingerprint_of_x_and_y_without_leading_zeros(scalar: int) -> None:
    public = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    assert keys.name_of(public) == EC_NAMES[scalar]


def test_the_name_of_an_rsa_key_is_the_fingerprint_of_its_modulus() -> None:
    public = rsa.RSAPublicNumbers(65537, int(RSA_MODULUS, 16)).public_key()
    assert keys.name_of(public) == RSA_NAME


def test_a_first_start_makes_a_p256_key_for_root_only(device: ClockedWorld) -> None:
    who = opened(device)
    raw = device.read(KEY)
    assert raw is not None
    assert raw.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert stat.S_IMODE(device.path(KEY).stat().st_mode) == 0o600
    assert len(who.name) == 52
    assert not who.is_enrolled


def test_a_restart_keeps_key_and_name(device: ClockedWorld) -> None:
    first, raw = opened(device).name, device.read(KEY)
    assert opened(device).name == first
    assert device.read(KEY) == raw


@pytest.mark.parametrize(
    "raw",
    [
        pem(ec.derive_private_key(43, ec.SECP256R1())),
        pem(
            ec.derive_private_key(43, ec.SECP256R1()),
            serialization.PrivateFormat.TraditionalOpenSSL,
        ),
    ],
    ids=["PKCS#8", "SEC1"],
)
def test_an_existing_key_is_used(device: ClockedWorld, raw: bytes) -> None:
    device.put(KEY, raw)
    assert opened(device).name == EC_NAMES[43]


def test_an_rsa_key_is_used_for_the_request_too(device: ClockedWorld) -> None:
    key = rsa.generate_private_key(65537, 2048)
    device.put(KEY, pem(key))
    request = x509.load_pem_x509_csr(opened(device).request().encode())
    assert request.is_signature_valid


def test_the_request_names_the_device_and_nothing_else(device: ClockedWorld) -> None:
    who = opened(device)
    text = who.pending_request()
    request = x509.load_pem_x509_csr(text.encode())
    assert request.is_signature_valid
    assert [(a.oid, a.value) for a in request.subject] == [(NameOID.COMMON_NAME, who.name)]
    assert text.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert device.read(CSR) == text.encode()
    assert stat.S_IMODE(device.path(CSR).stat().st_mode) == 0o600


@pytest.mark.parametrize("raw", [b"", b"garbage", b"\xff\xfe", b"-----BEGIN EC PRIVATE KEY-----"])
def test_a_damaged_key_of_a_device_that_never_enrolled_is_kept_beside_the_new_one(
    device: ClockedWorld, raw: bytes
) -> None:
    device.put(KEY, raw)
    who = opened(device)
    assert who.name
    assert device.read(f"{KEY}.unusable") == raw
    assert (device.read(KEY) or b"").startswith(b"-----BEGIN EC")


def test_a_damaged_key_of_an_enrolled_device_is_never_replaced(
    device: ClockedWorld, authority: Authority
) -> None:
    """A new key is a new device; that is for a person to decide."""
    who = opened(device)
    who.install(granted(who, authority))
    device.put(KEY, b"garbage")
    with pytest.raises(errors.Fatal, match="damaged"):
        opened(device)
    assert device.read(KEY) == b"garbage"
    assert device.read(CERTIFICATE)


def test_a_key_that_cannot_be_read_is_not_replaced(device: ClockedWorld) -> None:
    device.path(KEY).mkdir(parents=True)
    with pytest.raises(errors.Fatal, match="cannot be read"):
        opened(device)
    assert device.path(KEY).is_dir()


def test_a_granted_certificate_is_stored_for_root_and_the_request_is_gone(
    device: ClockedWorld, authority: Authority
) -> None:
    who = opened(device)
    who.pending_request()
    facts = who.install(granted(who, authority))
    assert who.is_enrolled
    assert stat.S_IMODE(device.path(CERTIFICATE).stat().st_mode) == 0o600
    assert device.read(CSR) is None
    assert facts.common_name == f"device:{who.name}"
    assert who.credentials().certificate == device.read(CERTIFICATE)
    again = opened(device)
    assert again.certificate == facts
    assert device.read(CSR) is None


def test_a_certificate_of_another_key_is_refused_and_nothing_changes(
    device: ClockedWorld, authority: Authority
) -> None:
    who = opened(device)
    other, _ = authority.pair("device:other")
    with pytest.raises(identity.Unusable, match="another key"):
        who.install(other.decode())
    assert device.read(CERTIFICATE) is None
    assert not who.is_enrolled


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_text_that_is_no_certificate_is_refused(device: ClockedWorld, text: str) -> None:
    with pytest.raises(identity.Unusable):
        opened(device).install(text)


def test_an_expired_certificate_is_not_taken_into_use(
    device: ClockedWorld, authority: Authority
) -> None:
    who = opened(device)
    old = granted(
        who, authority, start=device.now() - timedelta(days=9), lifetime=timedelta(days=1)
    )
    with pytest.raises(identity.Unusable, match="expired"):
        who.install(old)


def test_a_certificate_that_expired_meanwhile_is_still_shown_to_the_service(
    device: ClockedWorld, authority: Authority
) -> None:
    """The clock may be wrong; the service is the one to say no."""
    who = opened(device)
    who.install(granted(who, authority, lifetime=timedelta(days=1)))
    device.elapsed_s += timedelta(days=2).total_seconds()
    again = opened(device)
    assert again.is_enrolled
    assert again.is_expired()


@pytest.mark.parametrize("raw", [b"garbage", b"\xff"])
def test_a_damaged_certificate_is_set_aside_and_the_device_enrols_again(
    device: ClockedWorld, raw: bytes
) -> None:
    name = opened(device).name
    device.put(CERTIFICATE, raw)
    who = opened(device)
    assert not who.is_enrolled
    assert who.name == name
    assert device.read(f"{CERTIFICATE}.unusable") == raw


def test_an_empty_certificate_is_none(device: ClockedWorld) -> None:
    device.put(CERTIFICATE, b"")
    assert not opened(device).is_enrolled


def test_dropping_the_certificate_keeps_the_key(device: ClockedWorld, authority: Authority) -> None:
    who = opened(device)
    who.install(granted(who, authority))
    raw = device.read(KEY)
    who.drop_certificate()
    assert not who.is_enrolled
    assert device.read(CERTIFICATE) is None
    assert device.read(KEY) == raw
    with pytest.raises(transport.Unreachable):
        who.credentials()


def test_the_short_lived_child_answers_as_the_library_does() -> None:
    key = child.ask({"do": "create"})["key"]
    described = child.ask({"do": "describe", "key": key})
    assert described == keys.answer({"do": "describe", "key": key})
    assert "error" in child.ask({"do": "describe", "key": "nonsense"})
