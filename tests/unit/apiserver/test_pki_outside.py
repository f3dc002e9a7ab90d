"""What is asked of signers outside, what their answers mean, and what of them is taken."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from apiserver import config
from apiserver.pki import extensions, httpsigner, issued, kubesigner, requests, signerfile, signers
from apiserver.pki.calling import Reply
from apiserver.pki.orders import Declined, Issued, Order, Pending, Unavailable, Unusable
from tests.fakes.agent_client import fingerprint, signing_request
from tests.fakes.service import Authority

Json = dict[str, Any]

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = ec.derive_private_key(42, ec.SECP256R1())
NAME = fingerprint(KEY)
ORGANIZATION = UUID(int=7)
UID = "0b2f0c9e-6c0b-4f0e-9d0f-1f6a3f0f4a5e"


def order(lifetime: timedelta = timedelta(days=365)) -> Order:
    request = requests.parse(signing_request(KEY, NAME).encode())
    common_name = f"device:{NAME}"
    granted = signers.Grant(
        signers.DEVICE_ENROLLMENT, common_name, ORGANIZATION, common_name, lifetime
    )
    return Order(UID, "EnrollmentRequest", "default", NAME, request, granted, "ann")


# --- the certificate that comes back ----------------------------------------------------------


CA = Authority("outside")
TRUST = issued.trust_of(CA.pem)


def leaf(**changes: Any) -> bytes:
    """The certificate that was ordered, but for the changes."""
    said: Json = {
        "key": KEY.public_key(),
        "common_name": f"device:{NAME}",
        "signer": signers.DEVICE_ENROLLMENT,
        "organization": str(ORGANIZATION),
        "fingerprint": f"device:{NAME}",
        "begin": NOW - timedelta(seconds=1),
        "end": NOW + timedelta(days=365),
        "usage": ExtendedKeyUsageOID.CLIENT_AUTH,
        "ca": False,
        "by": CA,
    } | changes
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([extensions.common_name(said["common_name"])]))
        .issuer_name(said["by"].subject)
        .public_key(said["key"])
        .serial_number(x509.random_serial_number())
        .not_valid_before(said["begin"])
        .not_valid_after(said["end"])
        .add_extension(x509.BasicConstraints(said["ca"], None), critical=True)
    )
    if said["usage"] is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([said["usage"]]), critical=False)
    for oid, key in (
        (extensions.SIGNER, "signer"),
        (extensions.ORGANIZATION, "organization"),
        (extensions.FINGERPRINT, "fingerprint"),
    ):
        if said[key] is not None:
            value = x509.UnrecognizedExtension(oid, extensions.encode(said[key]))
            builder = builder.add_extension(value, critical=False)
    signed = builder.sign(said["by"].key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def test_what_was_ordered_is_taken_alone() -> None:
    found = issued.leaf_of(leaf() + CA.pem, order(), TRUST, now=NOW)
    assert found.count(b"BEGIN") == 1
    assert found == leaf_again(found)


def leaf_again(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.PEM)


WRONG: tuple[tuple[Json, str], ...] = (
    ({"key": ec.derive_private_key(43, ec.SECP256R1()).public_key()}, "another key"),
    ({"begin": NOW + timedelta(hours=1)}, "not valid before"),
    ({"begin": NOW - timedelta(days=2), "end": NOW}, "expired at"),
    ({"end": NOW + timedelta(days=367)}, "longer than the 31536000 s"),
    ({"by": Authority("outside")}, "is not in trustFile"),
    ({"by": Authority("stranger")}, "'CN=stranger', is not in trustFile"),
    ({"ca": True}, "that of an authority"),
    ({"usage": None}, "no extended key usage"),
    ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "lacks clientAuth"),
    ({"common_name": NAME}, "common name must be"),
    ({"signer": None}, "1.1 must be 'flightctl.io/device-enrollment', and is missing"),
    ({"signer": signers.ENROLLMENT}, "1.1 must be"),
    ({"signer": "homeport.dev/user"}, "1.1 must be"),
    ({"organization": None}, "1.2 must be"),
    ({"organization": str(UUID(int=8))}, "1.2 must be"),
    ({"organization": "mine"}, "not a UUID"),
    ({"fingerprint": None}, "1.3 must be"),
    ({"fingerprint": "device:another"}, "1.3 must be"),
)


@pytest.mark.parametrize(("changes", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_was_not_ordered_is_not_taken(changes: Json, why: str) -> None:
    with pytest.raises(issued.Unfit, match=why):
        issued.leaf_of(leaf(**changes), order(), TRUST, now=NOW)


@pytest.mark.parametrize(
    "pem",
    [b"", b"hope", leaf().replace(b"MII", b"AAA", 1), b"x" * 200_000],
    ids=["empty", "text", "no certificate", "too much"],
)  # fmt: skip
def test_garbage_is_not_taken(pem: bytes) -> None:
    with pytest.raises(issued.Unfit):
        issued.leaf_of(pem, order(), TRUST, now=NOW)


DER = x509.load_pem_x509_certificate(leaf()).public_bytes(serialization.Encoding.DER)


# Of a number below zero the library warns; that somebody else signed it is what decides.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@example(15, 128)
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_of_a_certificate_that_is_one_byte_off_nothing_is_taken_that_was_not_signed(
    at: int, by: int
) -> None:
    """Beside what is signed stands little: the name of the algorithm, once more."""
    wrong = bytearray(DER)
    wrong[at] ^= by
    body = base64.encodebytes(bytes(wrong))
    pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
    try:
        taken = issued.leaf_of(pem, order(), TRUST, now=NOW)
    except issued.Unfit:
        return
    signed = x509.load_der_x509_certificate(DER).tbs_certificate_bytes
    assert x509.load_pem_x509_certificate(taken).tbs_certificate_bytes == signed


def test_a_certificate_that_is_no_authoritys_is_not_trusted() -> None:
    with pytest.raises(issued.Unfit, match="not the certificate of an authority"):
        issued.trust_of(CA.pem + leaf())


# --- HTTP --------------------------------------------------------------------------------------


def test_an_order_is_the_same_however_often_it_is_made() -> None:
    ordered = order()
    body = httpsigner.body_of(ordered)
    assert body == httpsigner.body_of(ordered)
    assert body["uid"] == UID
    assert body["expirationSeconds"] == 365 * 86_400
    assert [each["value"] for each in body["extensions"]] == [
        signers.DEVICE_ENROLLMENT,
        str(ORGANIZATION),
        f"device:{NAME}",
    ]
    assert extensions.decode(bytes.fromhex(body["extensions"][2]["der"])) == f"device:{NAME}"


WORDS: Json = {"message": "no"}


@pytest.mark.parametrize(
    ("status", "after_s", "document", "answer"),
    [
        (200, 0, {"certificate": "PEM"}, Issued(b"PEM")),
        (200, 0, {"certificate": 7}, Unusable("it answers 200 without a certificate in PEM")),
        (200, 0, None, Unusable("it answers 200 without a certificate in PEM")),
        (202, 9, None, Pending("it has not decided yet", 9)),
        (202, 0, WORDS, Pending("no")),
        *((status, 0, WORDS, Declined("no")) for status in (400, 402, 409, 410, 413, 422, 451)),
        (422, 0, None, Unusable("it answers 422 without saying why")),
        (422, 0, {"message": 7}, Unusable("it answers 422 without saying why")),
        (404, 0, WORDS, Unavailable("it answers 404: no; look at its address")),
        (407, 0, None, Unavailable("it answers 407; look at its address")),
        (302, 0, None, Unavailable("it answers 302; look at its address")),
        (429, 7, None, Unavailable("it asks for patience (429)", 7)),
        (503, 7, WORDS, Unavailable("it answers 503: no", 7)),
    ],
)
def test_an_http_answer_means(status: int, after_s: int, document: Json, answer: object) -> None:
    assert httpsigner.answer_of(Reply(status, after_s, document)) == answer


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_not_refused(status: int) -> None:
    assert isinstance(httpsigner.answer_of(Reply(status, 0, WORDS)), Unavailable)


# --- Kubernetes --------------------------------------------------------------------------------

CLUSTER = signerfile.Kubernetes(
    type="kubernetes",
    url="https://kubernetes.example.com",
    trust_file=Path("/ca.pem"),
    token_file=Path("/token"),
    signer_name="example.com/devices",
)
WANTED = kubesigner.document_of(order(), CLUSTER)


def test_an_object_is_named_by_the_request_and_says_what_must_be_in_the_certificate() -> None:
    assert WANTED["metadata"]["name"] == f"homeport-{UID}"
    said = WANTED["metadata"]["annotations"]
    assert said["homeport.dev/common-name"] == f"device:{NAME}"
    assert said["homeport.dev/extension.1.3.6.1.4.1.99999.1.2"] == str(ORGANIZATION)
    assert WANTED["spec"]["expirationSeconds"] == 365 * 86_400
    assert "server auth" not in WANTED["spec"]["usages"]


@pytest.mark.parametrize(
    ("lifetime_s", "configured", "asked_s"),
    [(86_400, None, 86_400), (86_400, 3600, 3600), (3600, 86_400, 3600), (60, None, 600)],
)
def test_a_cluster_is_asked_for_no_more_than_the_request_or_the_file_says(
    lifetime_s: int, configured: int | None, asked_s: int
) -> None:
    settings = CLUSTER.model_copy(update={"expiration_seconds": configured})
    wanted = kubesigner.document_of(order(timedelta(seconds=lifetime_s)), settings)
    assert wanted["spec"]["expirationSeconds"] == asked_s


SIGNING = Pending("approved in the cluster, not signed yet")


def said(kind: str, message: str = "") -> Json:
    return {"type": kind, "status": "True", "message": message}


@pytest.mark.parametrize(
    ("status", "there", "answer"),
    [
        (201, {}, Pending("not approved in the cluster yet")),
        (200, {"conditions": [said("Approved")]}, SIGNING),
        (200, {"certificate": base64.b64encode(b"PEM").decode()}, Issued(b"PEM")),
        (200, {"certificate": "?"}, Unusable("the object's certificate is no base64")),
        (200, {"conditions": [said("Denied", "no")]}, Declined("denied in the cluster: no")),
        (200, {"conditions": [said("Failed")]}, Declined("failed in the cluster: no reason given")),
    ],
)  # fmt: skip
def test_an_object_means(status: int, there: Json, answer: object) -> None:
    assert kubesigner.answer_of(Reply(status, 0, WANTED | {"status": there}), WANTED) == answer


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (422, Declined("no")),
        (409, Pending("another of our processes has just made it", 1.0)),
        (403, Unavailable("it does not let us: no")),
        (400, Unavailable("it answers 400 no")),
        (500, Unavailable("it answers 500: no")),
    ],
)
def test_a_clusters_refusal_means(status: int, answer: object) -> None:
    assert kubesigner.answer_of(Reply(status, 0, WORDS), WANTED) == answer


def test_an_object_that_asks_for_something_else_is_not_ours() -> None:
    other = WANTED | {"spec": WANTED["spec"] | {"request": "b3RoZXI="}}
    assert isinstance(kubesigner.answer_of(Reply(200, 0, other), WANTED), Unusable)


# --- the file ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    (tmp_path / "leaf.pem").write_bytes(leaf())
    (tmp_path / "token").write_text("t")
    return tmp_path


def http(folder: Path, **changes: Any) -> Json:
    found: Json = {
        "type": "http",
        "url": "https://signer.example.com/sign",
        "trustFile": str(folder / "ca.pem"),
        "tokenFile": str(folder / "token"),
    } | changes
    return {key: value for key, value in found.items() if value is not None}


def settings_of(folder: Path, document: object) -> config.Settings:
    file = folder / "signers.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return config.settings_of(data=folder / "data", signers=file)


def test_a_file_names_who_signs_by_purpose(folder: Path) -> None:
    cluster = http(
        folder, type="kubernetes", signerName="example.com/devices", expirationSeconds=600
    )
    document = {"enrollment": {"type": "built-in"}, "management": cluster}
    found = settings_of(folder, document).signers
    assert isinstance(found["enrollment"], signerfile.BuiltIn)
    assert isinstance(found["management"], signerfile.Kubernetes)
    assert found["management"].timeout_seconds == 10


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "ldap"}, "management: Input tag 'ldap'"),
        ({"url": "http://signer.example.com"}, "management: Value error, url must be https://"),
        ({"url": None}, "management.url: Field required"),
        ({"tokenFile": None}, "give tokenFile, or"),
        ({"tokenFile": "token"}, "token: give a whole path"),
        ({"tokenFile": "/nowhere/token"}, "/nowhere/token: there is no such file"),
        ({"clientKeyFile": "/key"}, "come together"),
        ({"timeoutSeconds": 0}, "management.timeoutSeconds"),
        ({"retries": 3}, "management.retries: Extra inputs"),
        ({"type": "kubernetes"}, "management.signerName: Field required"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_signer_is_said_with_its_place(
    folder: Path, changes: Json, why: str
) -> None:
    with pytest.raises(config.ConfigError, match="--signers: ") as refused:
        settings_of(folder, {"management": http(folder, **changes)})
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("[]", "must be an object"),
        ("a: [", "can't be read"),
        ({"users": {"type": "built-in"}}, "users is no purpose"),
        ({"management": "built-in"}, "management: "),
    ],
    ids=str,
)
def test_what_is_no_file_of_signers_is_refused(folder: Path, document: object, why: str) -> None:
    with pytest.raises(config.ConfigError) as refused:
        settings_of(folder, document)
    assert why in str(refused.value)


def test_a_trust_file_without_authorities_is_refused(folder: Path) -> None:
    said = http(folder, trustFile=str(folder / "leaf.pem"))
    with pytest.raises(config.ConfigError, match="not the certificate of an authority"):
        settings_of(folder, {"management": said})
