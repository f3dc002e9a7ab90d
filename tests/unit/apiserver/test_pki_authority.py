"""The authority: what it signs, what its files survive, and what it refuses to paper over."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apiserver.pki import authority as authorities
from apiserver.pki import requests, signers
from apiserver.pki.authority import Authority, AuthorityDamaged
from apiserver.pki.extensions import identity_of
from tests.fakes.agent_client import signing_request

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = ec.derive_private_key(42, ec.SECP256R1())


def load(directory: Path, now: datetime = NOW) -> Authority:
    return Authority.load_or_create(directory, now=lambda: now)


def leaf(authority: Authority, *, lifetime: timedelta = timedelta(days=1), **more: object) -> bytes:
    pem: bytes = authority.issue_client(
        requests.parse(
            signing_request(
                KEY, "in-the-csr", x509.NameAttribute(NameOID.ORGANIZATION_NAME, "evil")
            ).encode()
        ),
        common_name="device:x",
        signer=signers.DEVICE_ENROLLMENT,
        organization=UUID(int=3),
        fingerprint="device:x",
        lifetime=lifetime,
        **more,  # type: ignore[arg-type]
    )
    return pem


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_the_second_start_finds_the_same_authority(tmp_path: Path) -> None:
    first, second = load(tmp_path), load(tmp_path)
    assert first.client_ca_pem == second.client_ca_pem
    assert first.server_ca_pem == second.server_ca_pem


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    load(directory).server_files("agent-server", ["localhost"])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert set(found.values()) == {0o600}
    assert {"ca.crt", "ca.key", "client-signer.crt", "client-signer.key"} < set(found)


def test_a_leaf_says_what_was_granted_and_nothing_of_the_requests_subject(tmp_path: Path) -> None:
    authority = load(tmp_path)
    certificate = read(leaf(authority))
    found = identity_of(certificate.public_bytes(serialization.Encoding.DER))
    assert (found.signer, found.common_name) == (signers.DEVICE_ENROLLMENT, "device:x")
    assert (found.organization, found.fingerprint) == (UUID(int=3), "device:x")
    assert found.groups == ()
    assert found.expires_at == (NOW + timedelta(days=1)).timestamp()
    certificate.verify_directly_issued_by(read(authority.client_ca_pem))
    assert certificate.not_valid_before_utc == NOW - timedelta(seconds=1)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    for extension in certificate.extensions:
        if extension.oid.dotted_string.startswith("1.3.6.1.4.1.99999"):
            assert not extension.critical


def test_an_administrator_has_groups_and_no_signer(tmp_path: Path) -> None:
    pem = load(tmp_path).issue_client(
        requests.parse(signing_request(KEY, "admin").encode()),
        common_name="admin",
        signer="",
        organization=None,
        fingerprint=None,
        lifetime=timedelta(days=1),
        groups=("system:masters",),
    )
    found = identity_of(read(pem).public_bytes(serialization.Encoding.DER))
    assert (found.common_name, found.groups) == ("admin", ("system:masters",))
    assert (found.signer, found.organization, found.fingerprint) == ("", None, "")


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path) -> None:
    authority = load(tmp_path)
    certificate = read(leaf(authority, lifetime=timedelta(days=9999)))
    assert certificate.not_valid_after_utc == read(authority.client_ca_pem).not_valid_after_utc


@pytest.mark.parametrize("stem", ["ca", "client-signer"])
def test_a_lost_certificate_is_made_anew_for_the_same_key(tmp_path: Path, stem: str) -> None:
    """So what was signed before is good afterwards."""
    signed = read(leaf(load(tmp_path)))
    (tmp_path / f"{stem}.crt").unlink()
    renewed = load(tmp_path)
    signed.verify_directly_issued_by(read(renewed.client_ca_pem))
    read(renewed.client_ca_pem).verify_directly_issued_by(read(renewed.server_ca_pem))


def test_a_lost_root_key_is_not_replaced(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(AuthorityDamaged, match=r"ca\.key"):
        load(tmp_path)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    load(tmp_path / "a")
    load(tmp_path / "b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(AuthorityDamaged, match="don't belong together"):
        load(tmp_path / "a")


def test_a_signer_of_another_root_is_refused(tmp_path: Path) -> None:
    load(tmp_path / "a")
    load(tmp_path / "b")
    for name in ("client-signer.crt", "client-signer.key"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(AuthorityDamaged, match="not signed"):
        load(tmp_path / "a")


def test_an_expired_authority_says_so(tmp_path: Path) -> None:
    load(tmp_path)
    with pytest.raises(AuthorityDamaged, match="expired"):
        load(tmp_path, NOW + timedelta(days=3651))


def test_server_files_are_kept_until_names_or_time_say_otherwise(tmp_path: Path) -> None:
    authority = load(tmp_path)
    names = ["localhost", "127.0.0.1", "::1"]
    certificate, key = authority.server_files("s", names)
    before = certificate.read_bytes()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert authority.server_files("s", names)[0].read_bytes() == before
    authority.server_files("s", [*names, "example.org"])
    changed = certificate.read_bytes()
    assert changed != before
    late = load(tmp_path, NOW + authorities.SERVER_LIFETIME - authorities.SERVER_RENEWAL * 0.9)
    late.server_files("s", [*names, "example.org"])
    assert certificate.read_bytes() != changed
    found = read(certificate.read_bytes())
    found.verify_directly_issued_by(read(authority.server_ca_pem))


def test_a_server_pair_that_a_crash_tore_is_made_anew(tmp_path: Path) -> None:
    authority = load(tmp_path)
    certificate, key = authority.server_files("s", ["localhost"])
    key.write_bytes((tmp_path / "ca.key").read_bytes())
    authority.server_files("s", ["localhost"])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
