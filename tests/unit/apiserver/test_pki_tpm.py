"""What the bytes of a TPM's bundle show, and what a credential for one keeps. The bundle of a real
software TPM (swtpm) is recorded; the liars are made here."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.pki import tpmbundle, tpmcredential, tpmroots, tpmtypes
from apiserver.pki.requests import Refused, fingerprints
from apiserver.pki.tpmroots import Roots, Unproven
from tests.fakes import software_tpm
from tests.fakes.software_tpm import DECRYPTS, KEPT, RESTRICTED, SIGNS, Maker, SoftwareTpm

RECORDED = json.loads((Path(__file__).parent / "data" / "swtpm.json").read_text())
THEN = datetime(2026, 11, 27, tzinfo=UTC)
TPM = SoftwareTpm()
ROOTS = Roots([TPM.maker.certificate])
STRANGER = software_tpm.new_key()


def check(bundle: str, roots: Roots = ROOTS) -> tpmbundle.Claim:
    return tpmbundle.check(tpmbundle.read(bundle), roots)


# --- a real one ----------------------------------------------------------------------------------


def test_the_bundle_of_a_real_software_tpm_shows_its_key() -> None:
    maker = x509.load_pem_x509_certificates(RECORDED["makers"].encode())
    claim = check(RECORDED["bundle"], Roots(maker, now=lambda: THEN))
    assert claim.endorsement is not None
    assert isinstance(claim.endorsement.public_key(), rsa.RSAPublicKey)
    assert claim.lak.attributes & tpmtypes.Attribute.RESTRICTED
    assert claim.lak.name.hex() == RECORDED["lak_name"]
    request = tpmbundle.signing_request(RECORDED["bundle"])
    assert RECORDED["name"] == request.common_name
    assert RECORDED["name"] in fingerprints(request.public_key)


# Of some of what is turned the library says that it will not read it for ever.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(base64.b64decode(RECORDED["bundle"])) * 8 - 1))
def test_no_bit_of_it_can_be_turned_unseen(bit: int) -> None:
    maker = x509.load_pem_x509_certificates(RECORDED["makers"].encode())
    raw = bytearray(base64.b64decode(RECORDED["bundle"]))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Refused, Unproven)):
        check(base64.b64encode(raw).decode(), Roots(maker, now=lambda: THEN))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3000))
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes, at: int) -> None:
    raw = base64.b64decode(RECORDED["bundle"])
    with pytest.raises((Refused, Unproven)):
        check(base64.b64encode(raw[:at] + garbage).decode())


# --- good and bad --------------------------------------------------------------------------------


def test_a_good_one() -> None:
    claim = check(TPM.bundle())
    assert claim.lak.name == TPM.lak_name


def test_a_certificate_that_does_not_fill_its_place_in_the_tpm_is_read() -> None:
    certificate = TPM.maker.endorse(TPM.endorsement.public_key())
    assert check(TPM.bundle(ek_certificate=certificate + bytes(300))).endorsement


ANOTHER = software_tpm.object_name(software_tpm.public_area(STRANGER, KEPT | SIGNS))
NAME = software_tpm.object_name(software_tpm.public_area(TPM.key, KEPT | SIGNS))
FORGED = software_tpm.attestation(NAME, magic=0x11223344)
QUOTE = software_tpm.attestation(NAME, kind=0x8018)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"request_key": STRANGER}, "another key than", id="swapped request"),
        pytest.param({"certified_name": ANOTHER}, "certified another key", id="another certified"),
        pytest.param({"signing_key": STRANGER}, "not signed by its own", id="signed by another"),
        pytest.param(
            {"key_signature": software_tpm.signature(STRANGER, b"x")}, "wrong", id="not the LAK"
        ),
        pytest.param(
            {"lak_attributes": KEPT | SIGNS}, "may sign what", id="a LAK that signs anything"
        ),
        pytest.param(
            {"lak_attributes": KEPT | SIGNS | RESTRICTED | DECRYPTS}, "may sign what", id="decrypts"
        ),
        pytest.param({"lak_attributes": SIGNS | RESTRICTED}, "may leave", id="LAK may leave"),
        pytest.param({"attributes": SIGNS}, "may leave its TPM", id="key may leave"),
        pytest.param({"attest": FORGED}, "no TPM made", id="an attestation by hand"),
        pytest.param({"attest": QUOTE}, "certifies no key", id="an attestation of something else"),
        pytest.param({"ek_certificate": b""}, "no certificate of an end", id="no certificate"),
        pytest.param({"ek_certificate": b"\x30\x03abc"}, "can't be read", id="no DER"),
        pytest.param({"lak": b""}, "of no use", id="no LAK"),
        pytest.param({"key": b"\0\0"}, "of no use", id="an empty key"),
        pytest.param({"key_certified": b""}, "of no use", id="no attestation"),
        pytest.param({"key_signature": b"\0\x18\0\x04"}, "SHA-256", id="SHA-1"),
    ],
)
def test_what_does_not_prove_a_key_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Unproven, match=words):
        check(TPM.bundle(**changes))


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        pytest.param(TPM.bundle(behind=b"x"), "too many", id="something behind"),
        pytest.param(TPM.bundle(head=bytes(12)), "another version", id="another version"),
        pytest.param(TPM.bundle(head=b"\0\0\1\0\0\0\0\4\0\0\0\x14"), "SHA-256", id="another hash"),
        pytest.param("AQABAP////8AAAAA", "were announced", id="a size beyond the end"),
        pytest.param("AQABAA", "can't be read", id="cut off"),
        pytest.param("AQABA!AA", "can't be read", id="no base64"),
        pytest.param("AQABAA" + "A" * 400_000, "too large", id="too large"),
    ],
)
def test_what_is_no_bundle_is_refused(bundle: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        check(bundle)


# --- makers --------------------------------------------------------------------------------------

ENDORSED = TPM.endorsement.public_key()
EXPIRED = timedelta(days=-2)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        pytest.param(lambda: Maker().endorse(ENDORSED), "not trusted", id="same name, other key"),
        pytest.param(lambda: Maker("x").endorse(ENDORSED), "not trusted", id="another maker"),
        pytest.param(
            lambda: TPM.maker.endorse(ENDORSED, valid_for=EXPIRED), "in force", id="expired"
        ),
        pytest.param(
            lambda: TPM.maker.endorse(ENDORSED, use=x509.ObjectIdentifier("2.23.133.8.2")),
            "not one for endorsement",
            id="a platform's certificate",
        ),
        pytest.param(
            lambda: TPM.maker.endorse(ENDORSED, x509.InhibitAnyPolicy(0)), "understood", id="?"
        ),
        pytest.param(
            lambda: TPM.maker.certificate.public_bytes(tpm_der()), "that of a CA", id="the CA's own"
        ),
    ],
)
def test_a_certificate_that_is_no_endorsement_is_not_believed(
    certificate: Callable[[], bytes], words: str
) -> None:
    with pytest.raises(Unproven, match=words):
        ROOTS.verified(certificate())


def tpm_der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_without_makers_nobody_is_believed() -> None:
    with pytest.raises(Unproven, match="--tpm-ca"):
        check(TPM.bundle(), Roots())


def test_a_maker_whose_own_certificate_has_ended_is_not_believed() -> None:
    maker = Maker(valid_for=EXPIRED)
    with pytest.raises(Unproven, match="maker is not in force"):
        Roots([maker.certificate]).verified(maker.endorse(ENDORSED))


def test_makers_are_read_from_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no certificates"):
        tpmroots.load(tmp_path)
    (tmp_path / "makers.pem").write_bytes(Maker().pem + TPM.maker.pem)
    (tmp_path / "another.der").write_bytes(Maker("y").certificate.public_bytes(tpm_der()))
    (tmp_path / "README").write_text("not read")
    assert check(TPM.bundle(), tpmroots.load(tmp_path)).endorsement
    (tmp_path / "leaf.crt").write_bytes(TPM.maker.endorse(ENDORSED))
    with pytest.raises(ValueError, match="not that of a CA"):
        tpmroots.load(tmp_path)
    (tmp_path / "leaf.crt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"leaf\.crt can't be read"):
        tpmroots.load(tmp_path)


# --- credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endorsement",
    [
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), id="RSA 2048"),
        pytest.param(lambda: rsa.generate_private_key(65537, 3072), id="RSA 3072"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP256R1()), id="P-256"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), id="P-384"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP521R1()), id="P-521"),
    ],
)
def test_a_credential_is_read_by_its_tpm_for_its_key_only(endorsement: Callable[[], Any]) -> None:
    tpm = SoftwareTpm(endorsement=endorsement())
    made = tpmcredential.make(tpm.endorsement.public_key(), tpm.lak_name)
    assert tpm.activate(made.blob, made.encrypted_secret) == made.secret
    assert len(made.secret) == 32
    with pytest.raises(AssertionError, match="integrity"):
        tpm.activate(made.blob, made.encrypted_secret, name=ANOTHER)
    again = tpmcredential.make(tpm.endorsement.public_key(), tpm.lak_name)
    assert again.secret != made.secret


def test_a_credential_is_made_for_no_key_that_a_tpm_could_not_have() -> None:
    with pytest.raises(tpmtypes.Malformed):
        tpmcredential.make(ec.generate_private_key(ec.SECP256K1()).public_key(), TPM.lak_name)
