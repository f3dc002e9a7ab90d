"""Bad client certificates: of strangers, out of their time, for another purpose, of another place.

Those that our authority did not sign, or not for clients, get no connection. Those that it signed
are answered, with 401 and the reason, or 403 and 400 where it is the organisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.contract.data.inputs.row import NOTHING, PLACE, Ask, Bad
from tests.fakes import bare_http, inputs_rig
from tests.fakes.bare_http import Door
from tests.fakes.inputs_rig import Rig

SIGNER, ORGANIZATION, FINGERPRINT = (
    x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.1.{number}") for number in (1, 2, 3)
)
ENROLLMENT = "flightctl.io/enrollment"
DEVICE = "flightctl.io/device-enrollment"
RENEWAL = "flightctl.io/device-management-renewal"
SERVICE_CLIENT = "flightctl.io/device-svc-client"
SERVER = "flightctl.io/server-svc"
USER = "homeport.dev/user"
DAY = timedelta(days=1)
NOW = datetime.now(UTC)

OWN = "/api/v1/devices/{name}/rendered"
REQUESTS = "/api/v1/enrollmentrequests/{name}"
RENEWALS = "/api/v1/certificatesigningrequests/{name}"
FLEETS = f"{PLACE}/fleets"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Issuer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def text(value: str) -> bytes:
    """A short PrintableString."""
    return bytes([0x13, len(value)]) + value.encode()


@dataclass(frozen=True)
class Leaf:
    """A certificate to be made; as it stands it is that of the device, and good."""

    names: tuple[str, ...] = ("device:{name}",)
    signer: bytes | None = text(DEVICE)
    organization: bytes | None = text(str(UUID(int=0)))
    fingerprint: bytes | None = None
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    signs_data: bool = True
    is_ca: bool = False
    names_its_signer: bool = True
    begins: datetime = NOW - timedelta(hours=1)
    ends: datetime = NOW + DAY
    serial: int = 0
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def signed(self, name: str, issuer: Issuer | None) -> x509.Certificate:
        """By `issuer`, or by itself."""
        subject = x509.Name(
            x509.NameAttribute(NameOID.COMMON_NAME, each.replace("{name}", name))
            for each in self.names
        )
        parent = issuer[0].subject if issuer else subject
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "crl_sign", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(parent)
            .public_key(self.key.public_key())
            .serial_number(self.serial or x509.random_serial_number())
            .not_valid_before(self.begins)
            .not_valid_after(self.ends)
            .add_extension(x509.BasicConstraints(ca=self.is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=self.signs_data, key_cert_sign=not self.signs_data, **usage
                ),
                critical=True,
            )
        )
        if issuer and self.names_its_signer:
            for found in issuer[0].extensions:
                if isinstance(found.value, x509.SubjectKeyIdentifier):
                    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)
                    builder = builder.add_extension(by, critical=False)
        if self.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        for oid, value in (
            (SIGNER, self.signer),
            (ORGANIZATION, self.organization),
            (FINGERPRINT, self.fingerprint),
        ):
            if value is not None:
                unknown = x509.UnrecognizedExtension(oid, value)
                builder = builder.add_extension(unknown, critical=False)
        return builder.sign(issuer[1] if issuer else self.key, hashes.SHA256())


def pem(leaf: Leaf, *certificates: x509.Certificate) -> bytes:
    key = leaf.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates) + key


def ours(leaf: Leaf, rig: Rig) -> bytes:
    """As the signer of client certificates would sign it."""
    return pem(leaf, leaf.signed(rig.agent.name, (rig.signer, rig.signer_key)))


def of_the_device(rig: Rig) -> Door:
    """A certificate made here that is right, so that the others are wrong in what they say only."""
    leaf = Leaf(fingerprint=text(f"device:{rig.agent.name}"))
    return rig.agents(rig.showing(ours(leaf, rig)))


# --- others than ours ----------------------------------------------------------------------------


def itself(leaf: Leaf, rig: Rig) -> bytes:
    return pem(leaf, leaf.signed(rig.agent.name, None))


def another_authority(leaf: Leaf, rig: Rig) -> bytes:
    """Of the same names as ours, with another key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return pem(leaf, leaf.signed(rig.agent.name, (rig.signer, key)))


def a_chain_of_its_own(leaf: Leaf, rig: Rig) -> bytes:
    parent = Leaf(names=("flightctl-client-signer-ca",), is_ca=True, signs_data=False)
    signed = parent.signed("", None)
    assert isinstance(parent.key, ec.EllipticCurvePrivateKey)
    return pem(leaf, leaf.signed(rig.agent.name, (signed, parent.key)), signed)


def the_root(leaf: Leaf, rig: Rig) -> bytes:
    """Which signs servers, and whom only servers' clients trust."""
    return pem(leaf, leaf.signed(rig.agent.name, (rig.root, rig.root_key)))


def a_device(leaf: Leaf, rig: Rig) -> bytes:
    """Under the certificate of a device, which is no authority."""
    parent = Leaf()
    signed = parent.signed(rig.agent.name, (rig.signer, rig.signer_key))
    assert isinstance(parent.key, ec.EllipticCurvePrivateKey)
    return pem(leaf, leaf.signed(rig.agent.name, (signed, parent.key)), signed)


def an_authority_below(leaf: Leaf, rig: Rig) -> bytes:
    """Of which our signer's own certificate says that there may be none."""
    parent = Leaf(names=("below",), is_ca=True, signs_data=False, purposes=())
    signed = parent.signed("", (rig.signer, rig.signer_key))
    assert isinstance(parent.key, ec.EllipticCurvePrivateKey)
    return pem(leaf, leaf.signed(rig.agent.name, (signed, parent.key)), signed)


def the_servers_own(leaf: Leaf, rig: Rig) -> bytes:
    pki = rig.server.data / "pki"
    return (pki / "server.crt").read_bytes() + (pki / "server.key").read_bytes()


Make = Callable[[Leaf, Rig], bytes]


def shown(id: str, code: int, expected: str, make: Make, target: str, **said: Any) -> Bad:
    def ask(rig: Rig) -> Ask:
        tls = rig.showing(make(Leaf(**said), rig))
        door = rig.users(tls) if target == FLEETS else rig.agents(tls)
        return Ask(door, bare_http.request("GET", target.replace("{name}", rig.agent.name)))

    return Bad(id, ask, code, expected, NOTHING if not code else "status")


def no_connection(id: str, make: Make = ours, target: str = OWN, **said: Any) -> Bad:
    return shown(id, 0, "", make, target, **said)


def refused(id: str, expected: str, target: str = OWN, code: int = 401, **said: Any) -> Bad:
    """Signed as it should be."""
    return shown(id, code, expected, ours, target, **said)


def bare(id: str, raw: bytes) -> Bad:
    """No TLS."""
    return Bad(id, lambda rig: Ask(rig.agents(None), raw), 0, "", NOTHING)


def none_at_all(rig: Rig) -> Ask:
    request = bare_http.request("GET", OWN.replace("{name}", rig.agent.name))
    return Ask(rig.agents(rig.anybody.tls), request)


RSA_1024 = rsa.generate_private_key(65537, 1024)
NOT_OF_A_DEVICE = "needs a certificate that was issued to a device"
NOT_TO_ENROL = f"needs a certificate that was issued by {ENROLLMENT}"
NOT_A_USER = "not one for users"
UNUSABLE = "the client certificate can't be used"
FOREIGN = text("5a1c1b2e-0000-4000-8000-000000000001")
FACTORY = ("client-enrollment-factory",)

STRANGERS = [
    Bad("none", none_at_all, 0, "", NOTHING),
    no_connection("signed-by-itself", itself),
    no_connection("of-another-authority-with-our-names", another_authority),
    no_connection("with-a-chain-of-its-own", a_chain_of_its_own),
    no_connection("signed-by-the-root", the_root),
    no_connection("signed-by-a-device", a_device),
    no_connection("signed-by-an-authority-below", an_authority_below),
    no_connection("the-servers-own", the_servers_own),
    no_connection("for-servers-only", purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    no_connection("for-mail", purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)),
    no_connection("for-signing-code", purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)),
    no_connection("not-for-signatures", signs_data=False),
    no_connection("weak-key", key=RSA_1024),
    no_connection("user-signed-by-itself", itself, FLEETS, names=("admin",), signer=text(USER)),
    no_connection("user-of-another-authority", another_authority, FLEETS, signer=text(USER)),
    no_connection("user-signed-by-the-root", the_root, FLEETS, signer=text(USER)),
    no_connection("user-signed-by-a-device", a_device, FLEETS, signer=text(USER)),
    no_connection("user-the-servers-own", the_servers_own, FLEETS),
    no_connection("user-expired", ours, FLEETS, signer=text(USER), ends=NOW - DAY / 48),
    no_connection("user-not-valid-yet", ours, FLEETS, signer=text(USER), begins=NOW + DAY / 2),
    no_connection(
        "user-for-servers-only", ours, FLEETS, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)
    ),
    bare("no-tls", b"GET /api/v1/devices/x/rendered HTTP/1.1\r\nHost: x\r\n\r\n"),
    bare("no-tls-nor-http", b"\x00" * 64),
    bare("tls-of-another-age", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01" * 37),
    bare("tls-record-too-long", b"\x16\x03\x01\xff\xff" + b"\x01" * 600),
]

REVOKED = refused("revoked", "was revoked", serial=inputs_rig.REVOKED)
SIGNED = [
    REVOKED,
    refused("expired", "has expired", ends=NOW - DAY / 48),
    refused(
        "expired-to-enrol",
        "has expired",
        REQUESTS,
        signer=text(ENROLLMENT),
        names=FACTORY,
        ends=NOW - DAY / 48,
    ),
    refused("not-valid-yet", "is not valid yet", begins=NOW + DAY / 2),
    refused(
        "not-valid-yet-to-enrol",
        "is not valid yet",
        REQUESTS,
        signer=text(ENROLLMENT),
        names=FACTORY,
        begins=NOW + DAY / 2,
    ),
    refused("revoked-to-renew", "was revoked", RENEWALS, serial=inputs_rig.REVOKED),
    refused("signed-by-it-does-not-say-whom", "is trusted no more", names_its_signer=False),
    refused("no-extensions", NOT_OF_A_DEVICE, signer=None, organization=None),
    refused("no-signer", NOT_OF_A_DEVICE, signer=None),
    refused("signer-empty", NOT_OF_A_DEVICE, signer=text("")),
    refused("signer-unknown", NOT_OF_A_DEVICE, signer=text("example.com/signer")),
    refused("signer-in-capitals", NOT_OF_A_DEVICE, signer=text(DEVICE.upper())),
    refused("signer-with-a-blank", NOT_OF_A_DEVICE, signer=text(f"{DEVICE} ")),
    refused("signer-for-users", NOT_OF_A_DEVICE, signer=text(USER), names=("admin",)),
    refused("signer-for-servers", NOT_OF_A_DEVICE, signer=text(SERVER), names=("svc-x",)),
    refused("signer-for-services", NOT_OF_A_DEVICE, signer=text(SERVICE_CLIENT)),
    refused("enrolment-for-a-device", NOT_OF_A_DEVICE, signer=text(ENROLLMENT), names=FACTORY),
    refused("enrolment-with-a-devices-name", NOT_OF_A_DEVICE, signer=text(ENROLLMENT)),
    refused("enrolment-to-renew", NOT_OF_A_DEVICE, RENEWALS, signer=text(ENROLLMENT)),
    refused("services-to-renew", NOT_OF_A_DEVICE, RENEWALS, signer=text(SERVICE_CLIENT)),
    refused("device-to-enrol", NOT_TO_ENROL, REQUESTS),
    refused("renewed-device-to-enrol", NOT_TO_ENROL, REQUESTS, signer=text(RENEWAL)),
    refused("service-to-enrol", NOT_TO_ENROL, REQUESTS, signer=text(SERVICE_CLIENT)),
    refused("user-to-enrol", NOT_TO_ENROL, REQUESTS, signer=text(USER), names=("admin",)),
    refused("nobody-to-enrol", NOT_TO_ENROL, REQUESTS, signer=None),
    refused("signer-no-string", UNUSABLE, signer=b"\x02\x01\x05"),
    refused("signer-cut", UNUSABLE, signer=text(DEVICE)[:-1]),
    refused("signer-with-a-tail", UNUSABLE, signer=text(DEVICE) + b"\0"),
    refused("signer-without-content", UNUSABLE, signer=b""),
    refused("signer-not-utf-8", UNUSABLE, signer=b"\x0c\x02\xff\xfe"),
    refused("signer-with-a-long-length", UNUSABLE, signer=b"\x13\x81\x03abc"),
    refused("organisation-not-a-uuid", UNUSABLE, organization=text("default")),
    refused("organisation-no-string", UNUSABLE, organization=b"\x04\x02ab"),
    refused("organisation-cut", UNUSABLE, organization=text(str(UUID(int=0)))[:-3]),
    refused("organisation-unknown", "is not known here", code=403, organization=FOREIGN),
    refused(
        "organisation-unknown-to-enrol",
        "is not known here",
        REQUESTS,
        403,
        organization=FOREIGN,
        signer=text(ENROLLMENT),
        names=FACTORY,
    ),
    refused("organisation-missing", "no organization ID", code=400, organization=None),
    refused("organisation-empty", "no organization ID", code=400, organization=text("")),
    refused(
        "organisation-missing-to-enrol",
        "no organization ID",
        REQUESTS,
        400,
        organization=None,
        signer=text(ENROLLMENT),
        names=FACTORY,
    ),
    refused("fingerprint-of-another", NOT_OF_A_DEVICE, fingerprint=text("device:another")),
    refused("fingerprint-without-prefix", NOT_OF_A_DEVICE, fingerprint=text("another")),
    refused("fingerprint-no-string", UNUSABLE, fingerprint=b"\x30\x00"),
    refused("no-name", NOT_OF_A_DEVICE, names=()),
    refused("two-names", UNUSABLE, names=("device:{name}", "device:another")),
    refused("the-same-name-twice", UNUSABLE, names=("device:{name}", "device:{name}")),
    refused("name-without-prefix", NOT_OF_A_DEVICE, names=("{name}",)),
    refused("prefix-alone", NOT_OF_A_DEVICE, names=("device:",)),
    refused("prefix-in-capitals", NOT_OF_A_DEVICE, names=("DEVICE:{name}",)),
    refused("prefix-with-a-blank", NOT_OF_A_DEVICE, names=(" device:{name}",)),
    refused("another-device", "another device's", names=("device:another",)),
    refused("prefix-twice", "another device's", names=("device:device:x",)),
    refused("name-with-a-blank", "another device's", names=("device:{name} ",)),
]

ON_THE_USERS_FACE = [
    refused("user-as-a-device", NOT_A_USER, FLEETS),
    refused("user-as-a-renewed-device", NOT_A_USER, FLEETS, signer=text(RENEWAL)),
    refused("user-as-a-factory", NOT_A_USER, FLEETS, signer=text(ENROLLMENT), names=FACTORY),
    refused("user-as-a-service", NOT_A_USER, FLEETS, signer=text(SERVICE_CLIENT)),
    refused("user-as-a-server", NOT_A_USER, FLEETS, signer=text(SERVER), names=("svc-x",)),
    refused("user-without-extensions", NOT_A_USER, FLEETS, signer=None, names=("admin",)),
    refused("user-of-an-unknown-signer", NOT_A_USER, FLEETS, signer=text("kubernetes.io/x")),
    refused("user-without-a-name", NOT_A_USER, FLEETS, signer=text(USER), names=()),
    refused("user-of-two-names", NOT_A_USER, FLEETS, signer=text(USER), names=("a", "b")),
    refused("user-signer-cut", NOT_A_USER, FLEETS, signer=text(USER)[:-1]),
    refused("user-signer-no-string", NOT_A_USER, FLEETS, signer=b"\x05\x00"),
    refused("user-organisation-not-a-uuid", NOT_A_USER, FLEETS, signer=text(USER),
            organization=text("default")),
]  # fmt: skip

ROWS = [*STRANGERS, *SIGNED, *ON_THE_USERS_FACE]
