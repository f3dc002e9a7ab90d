"""Bad certificate requests: what is no request at all, what does not prove its key, keys that are
not taken, names that are not the asker's, signers that do not sign that.

There are three doors: a user's CertificateSigningRequest, a device's, and an agent's
EnrollmentRequest; what is wrong with the request itself is wrong at each.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests.contract.data.inputs.certificates import ORGANIZATION, text
from tests.contract.data.inputs.row import (
    AGENTS,
    JSON,
    PLACE,
    Ask,
    Bad,
    by_admin,
    by_device,
    by_factory,
    content,
)
from tests.fakes import agent_client, bare_http
from tests.fakes.inputs_rig import Rig

Json = dict[str, Any]
Key = Any

ENROLLMENT = "flightctl.io/enrollment"
RENEWAL = "flightctl.io/device-management-renewal"
SERVICE_CLIENT = "flightctl.io/device-svc-client"
USAGES = ["clientAuth", "CA:false"]
TARGET = f"{PLACE}/certificatesigningrequests"
BEGIN, END = "-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----"

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = agent_client.fingerprint(KEY)


def builder(*names: str) -> x509.CertificateSigningRequestBuilder:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))


def der(made: x509.CertificateSigningRequestBuilder, key: Key = KEY) -> bytes:
    is_plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    signed = made.sign(key, None if is_plain else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def armoured(raw: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(raw).decode()}\n-----END {label}-----\n"


def of(key: Key, name: str = NAME) -> str:
    return armoured(der(builder(name), key))


# --- what is wrong with a request, wherever it is sent -------------------------------------------


def without_version(raw: bytes, version: int) -> bytes:
    """Another version than the only one that there is (v1, written 0)."""
    assert raw.count(b"\x02\x01\x00") >= 1
    return raw.replace(b"\x02\x01\x00", bytes([2, 1, version]), 1)


def changed(raw: bytes) -> bytes:
    """The last byte of the signature flipped."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


def of_anothers_key() -> bytes:
    """Somebody's public key, in a request that somebody else signed."""
    other = ec.generate_private_key(ec.SECP256R1())
    point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    mine, theirs = (key.public_key().public_bytes(*point) for key in (KEY, other))
    return der(builder(NAME)).replace(mine, theirs)


def off_the_curve() -> bytes:
    point = KEY.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return der(builder(NAME)).replace(point, b"\x04" + b"\x01" * 64)


def extended(extension: x509.ExtensionType) -> str:
    return armoured(der(builder(NAME).add_extension(extension, critical=False)))


def with_organization(value: bytes) -> str:
    return extended(x509.UnrecognizedExtension(ORGANIZATION, value))


def with_a_name_of_no_type() -> str:
    """subjectAltName with an x400Address, which nobody reads."""
    san = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("2.5.29.17"), b"\x30\x04\xa3\x02\x30\x00"
    )
    return extended(san)


def twice_extended() -> str:
    """One extension two times: another of the same length, renamed."""
    made = builder(NAME)
    for oid in (ORGANIZATION, x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.4")):
        made = made.add_extension(x509.UnrecognizedExtension(oid, text("x")), critical=False)
    # The ends of both identifiers.
    second, first = b"\x86\x8d\x1f\x01\x04", b"\x86\x8d\x1f\x01\x02"
    raw = der(made)
    assert raw.count(second) == raw.count(first) == 1
    return armoured(raw.replace(second, first))


def for_agreement_only() -> str:
    """X25519, which can't sign: the identifier of the key, in a request by Ed25519."""
    raw = der(builder(NAME), ed25519.Ed25519PrivateKey.generate())
    return armoured(raw.replace(b"\x2b\x65\x70", b"\x2b\x65\x6e", 1))


GOOD = of(KEY)
RAW = der(builder(NAME))
WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "PEM"),
    "not-pem": ("certificate, please", "PEM"),
    "der-in-base64": (base64.b64encode(RAW).decode(), "PEM"),
    "two-blocks": (GOOD + GOOD, "nothing"),
    "text-before": ("Subject: me\n" + GOOD, "PEM"),
    "text-after": (GOOD + "and more\n", "nothing"),
    "block-of-another-label": (armoured(RAW, "NEW CERTIFICATE REQUEST"), "PEM"),
    "a-certificate": (armoured(RAW, "CERTIFICATE"), "PEM"),
    "small-letters": (GOOD.lower(), "PEM"),
    "no-end": (GOOD.replace(END, ""), "PEM"),
    "no-beginning": (GOOD.replace(BEGIN, ""), "PEM"),
    "nothing-between": (f"{BEGIN}\n{END}\n", "base64"),
    "not-base64": (f"{BEGIN}\n***\n{END}\n", "base64"),
    "bad-padding": (f"{BEGIN}\nMIIB=AAA\n{END}\n", "base64"),
    "with-headers": (GOOD.replace("\n", "\nProc-Type: 4,ENCRYPTED\n\n", 1), "base64"),
    "not-der": (armoured(b"0" * 90), "can't be read"),
    "der-cut": (armoured(RAW[:-20]), "can't be read"),
    "der-with-a-tail": (armoured(RAW + b"\0\0"), "can't be read"),
    "der-empty": (armoured(b"\x30\x00"), "can't be read"),
    "der-endless": (armoured(b"\x30\x84\xff\xff\xff\xff" + RAW), "can't be read"),
    "der-deep": (armoured(b"\x30\x80" * 2000), "can't be read"),
    "version-2": (armoured(without_version(RAW, 1)), "can't be read"),
    "version-200": (armoured(without_version(RAW, 100)), "can't be read"),
    "signature-changed": (armoured(changed(RAW)), "signature"),
    "key-of-another": (armoured(of_anothers_key()), "signature"),
    "key-off-the-curve": (armoured(off_the_curve()), "can't be read"),
    "key-rsa-1024": (of(rsa.generate_private_key(65537, 1024)), "2048 bits"),
    "key-dsa": (of(dsa.generate_private_key(1024)), "must be ECDSA"),
    "key-p192": (of(ec.generate_private_key(ec.SECP192R1())), "must be ECDSA"),
    "key-p224": (of(ec.generate_private_key(ec.SECP224R1())), "must be ECDSA"),
    "key-of-bitcoin": (of(ec.generate_private_key(ec.SECP256K1())), "must be ECDSA"),
    "key-brainpool": (of(ec.generate_private_key(ec.BrainpoolP256R1())), "must be ECDSA"),
    "key-ed448": (of(ed448.Ed448PrivateKey.generate()), "must be ECDSA"),
    "key-x25519": (for_agreement_only(), "signature"),
    "two-names": (armoured(der(builder(NAME, "another"))), "several common names"),
    "organisation-no-string": (with_organization(b"\x02\x01\x05"), "can't be read"),
    "organisation-not-a-uuid": (with_organization(text("default")), "can't be read"),
    "organisation-twice": (twice_extended(), "can't be read"),
    "alternative-name-of-no-type": (with_a_name_of_no_type(), "can't be read"),
    "too-large": (GOOD.replace("\n", "\n" + " " * 70_000, 1), "too large"),
}


# --- the three doors -----------------------------------------------------------------------------


def signing_request(pem: str, signer: object = ENROLLMENT, **spec: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "bad"},
        "spec": {
            "request": base64.b64encode(pem.encode()).decode(),
            "signerName": signer,
            "usages": USAGES,
        }
        | spec,
    }


def enrollment_request(csr: object, name: object = NAME, **spec: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "EnrollmentRequest",
        "metadata": {"name": name},
        "spec": {"csr": csr} | spec,
    }


def user(id: str, code: int, expected: str, document: Json) -> Bad:
    return Bad(f"user-{id}", by_admin("POST", TARGET, document), code, expected)


def agent(id: str, expected: str, document: Json) -> Bad:
    """An agent that enrols."""
    return Bad(f"agent-{id}", by_factory("POST", "/enrollmentrequests", document), 400, expected)


def device(
    id: str, expected: str, make: Callable[[str], str], signer: object = RENEWAL, **spec: Any
) -> Bad:
    """A device that renews; `make` gets its name."""

    def ask(rig: Rig) -> Ask:
        document = signing_request(make(rig.agent.name), signer, **spec)
        raw = bare_http.request(
            "POST", f"{AGENTS}/certificatesigningrequests", [JSON], content(document)
        )
        return Ask(rig.device, raw, "POST")

    return Bad(f"device-{id}", ask, 400, expected)


def everywhere() -> Iterator[Bad]:
    for id, (pem, expected) in WRONG.items():
        yield agent(id, expected, enrollment_request(pem))
        # Found by its form, a document's fault is 422 at the users' face.
        code = 400 if expected in ("can't be read", "signature", "several common names") else 422
        if expected in ("2048 bits", "must be ECDSA", "too large"):
            code = 400
        yield user(id, code, expected, signing_request(pem))


def constant(pem: str) -> Callable[[str], str]:
    return lambda _: pem


def named(template: str) -> Callable[[str], str]:
    return lambda name: agent_client.signing_request(KEY, template.replace("{name}", name))


OTHERS = [
    device("not-pem", "PEM", constant("certificate, please")),
    device("two-blocks", "nothing", constant(GOOD + GOOD)),
    device("signature-changed", "signature", constant(armoured(changed(RAW)))),
    device("key-rsa-1024", "2048 bits", constant(WRONG["key-rsa-1024"][0])),
    device("version-2", "can't be read", constant(WRONG["version-2"][0])),
    device("no-name", "own management certificate", constant(armoured(der(builder())))),
    device("name-of-another", "own management certificate", named("device:another")),
    device("another-prefix", "own management certificate", named("svc:{name}")),
    device("prefix-in-capitals", "own management certificate", named("DEVICE:{name}")),
    device("name-with-a-tail", "own management certificate", named("device:{name}x")),
    device("service-of-another", "must end with", named("svc-x-another"), SERVICE_CLIENT),
    device("service-without-a-dash", "must end with", named("svc{name}"), SERVICE_CLIENT),
    device("service-as-a-device", "reserved for devices", named("device:{name}"), SERVICE_CLIENT),
    device("to-enrol-others", "by users", named("x"), ENROLLMENT),
    device("to-enrol-others-by-the-old-name", "by users", named("x"), "enrollment"),
    device("signer-of-users", "signerName", named("admin"), "homeport.dev/user"),
    device("signer-of-servers", "signerName", named("svc-x"), "flightctl.io/server-svc"),
    device("signer-unknown", "signerName", named("device:{name}"), "example.com/x"),
    device("signer-empty", "signerName", named("device:{name}"), ""),
    device("signer-number", "signerName", named("device:{name}"), 1),
    device("signer-list", "signerName", named("device:{name}"), [RENEWAL]),
    device("signer-null", "signerName", named("device:{name}"), None),
    device("no-usages", "usages", named("device:{name}"), usages=None),
    device("usages-empty", "usages", named("device:{name}"), usages=[]),
    device("usages-of-an-authority", "CA:false", named("device:{name}"),
           usages=["clientAuth", "CA:true"]),
    device("usages-text", "usages", named("device:{name}"), usages="clientAuth"),
    device("expires-at-once", "expirationSeconds", named("device:{name}"), expirationSeconds=0),
    device("expires-text", "expirationSeconds", named("device:{name}"), expirationSeconds="1d"),
    device("request-number", "spec.request", named("device:{name}"), request=1),
    device("request-not-base64", "spec.request", named("device:{name}"), request="***"),
    device("request-null", "spec.request", named("device:{name}"), request=None),
    agent("no-name-in-it", "common name", enrollment_request(armoured(der(builder())))),
    agent("name-of-another", "common name", enrollment_request(of(KEY, "another-device-xyz"))),
    agent("name-in-capitals", "common name", enrollment_request(of(KEY, NAME.upper()))),
    agent("prefix-twice", "common name", enrollment_request(of(KEY, f"device:device:{NAME[:40]}"))),
    agent("not-the-fingerprint", "fingerprint",
          enrollment_request(of(KEY, "sixteen-letters-x"), "sixteen-letters-x")),
    agent("fingerprint-of-another-key", "fingerprint",
          enrollment_request(of(ec.generate_private_key(ec.SECP256R1())))),
    agent("ed25519-has-no-name", "must be ECDSA or RSA",
          enrollment_request(of(ed25519.Ed25519PrivateKey.generate()))),
    agent("name-short", "16 characters", enrollment_request(of(KEY, "short"), "short")),
    agent("name-missing", "metadata.name", enrollment_request(GOOD, None)),
    agent("name-number", "metadata.name", enrollment_request(GOOD, 12345678901234567890)),
    agent("csr-number", "spec.csr", enrollment_request(1)),
    agent("csr-null", "spec.csr", enrollment_request(None)),
    agent("csr-list", "spec.csr", enrollment_request([GOOD])),
    agent("labels-list", "spec.labels", enrollment_request(GOOD, labels=["a"])),
    agent("label-key", "spec.labels", enrollment_request(GOOD, labels={"a b": "c"})),
    agent("version-text", "knownRenderedVersion",
          enrollment_request(GOOD, knownRenderedVersion="v1")),
    agent("status-text", "deviceStatus", enrollment_request(GOOD, deviceStatus="fine")),
    agent("os-mode", "osMode", enrollment_request(GOOD, osMode="windows")),
    user("renewal", 400, "only a device", signing_request(GOOD, RENEWAL)),
    user("service", 400, "only a device", signing_request(GOOD, SERVICE_CLIENT)),
    user("as-a-device", 400, "reserved for devices", signing_request(of(KEY, "device:abc"))),
    user("signer-of-servers", 422, "server certificates",
         signing_request(GOOD, "flightctl.io/server-svc")),
    user("signer-of-kubernetes", 422, "spec.signerName",
         signing_request(GOOD, "kubernetes.io/kube-apiserver-client")),
    user("signer-in-capitals", 422, "spec.signerName", signing_request(GOOD, ENROLLMENT.upper())),
    user("signer-null", 422, "spec.signerName", signing_request(GOOD, None)),
    user("signer-object", 422, "spec.signerName", signing_request(GOOD, {"name": ENROLLMENT})),
    user("usages-null", 422, "spec.usages", signing_request(GOOD, usages=None)),
    user("usages-of-an-authority", 422, "CA:false",
         signing_request(GOOD, usages=["clientAuth", "CA:true"])),
    user("usages-numbers", 422, "spec.usages", signing_request(GOOD, usages=[1, 2])),
    user("expires-before", 422, "expirationSeconds",
         signing_request(GOOD, expirationSeconds=-86_400)),
    user("expires-text", 422, "expirationSeconds", signing_request(GOOD, expirationSeconds="1d")),
    user("expires-fraction", 422, "expirationSeconds",
         signing_request(GOOD, expirationSeconds=1.5)),
    user("expires-after-all", 422, "expirationSeconds",
         signing_request(GOOD, expirationSeconds=2**31 - 1)),
    user("expires-beyond-integers", 422, "expirationSeconds",
         signing_request(GOOD, expirationSeconds=2**40)),
    Bad("device-reads-of-others", by_device("GET", "/certificatesigningrequests/nobodys"), 404,
        "not found"),
    Bad("device-body-list", by_device("POST", "/certificatesigningrequests", []), 400,
        "must be an object"),
    Bad("device-spec-text", by_device("POST", "/certificatesigningrequests", {"spec": "x"}), 400,
        "spec must be an object"),
    Bad("agent-body-null", by_factory("POST", "/enrollmentrequests", "null"), 400,
        "must be an object"),
    Bad("agent-other-version",
        by_factory("POST", "/enrollmentrequests",
                   enrollment_request(GOOD) | {"apiVersion": "v1alpha1"}), 400, "apiVersion"),
]  # fmt: skip

ROWS = [*everywhere(), *OTHERS]
