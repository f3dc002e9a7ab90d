"""Rotation of the authority: one generation for all processes, trusted before it signs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from apiserver import auditing, ca
from apiserver.errors import Unauthorized
from apiserver.pki import generations, requests, rotation, signers
from apiserver.pki.authority import Authority, AuthorityDamaged, Standing
from apiserver.pki.extensions import PeerIdentity, identity_of
from apiserver.pki.rotation import Rotation
from apiserver.store import Store, auditlog, authorities
from tests.fakes.agent_client import signing_request

KEY = ec.derive_private_key(42, ec.SECP256R1())


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Replica:
    """An authority in its own directory, kept as the store has it."""

    def __init__(self, directory: Path, store: Store, clock: Clock) -> None:
        self.directory = directory
        self.authority = Authority.load_or_create(directory, now=clock)
        self.in_force = 0
        told = auditing.authority_changed
        self.rotation = Rotation(store, self.authority, clock, self.put_in_force, told)

    async def put_in_force(self) -> None:
        self.in_force += 1

    def leaf(self) -> PeerIdentity:
        pem = self.authority.issue_client(
            requests.parse(signing_request(KEY, "x").encode()),
            common_name="device:x",
            signer=signers.RENEWAL,
            organization=UUID(int=0),
            fingerprint="device:x",
            lifetime=timedelta(days=1),
        )
        certificate = x509.load_pem_x509_certificate(pem)
        return identity_of(certificate.public_bytes(serialization.Encoding.DER))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(data_dir=tmp_path / "data")
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def two(tmp_path: Path, store: Store, clock: Clock) -> tuple[Replica, Replica]:
    first = Replica(tmp_path / "a", store, clock)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    return first, Replica(tmp_path / "b", store, clock)


async def told(store: Store) -> list[tuple[str, str, str, str]]:
    rows = await store.read(lambda s: auditlog.page(s, auditlog.Wanted(), 0, 100))
    specs = [row.spec for row in rows]
    assert {spec["object"]["kind"] for spec in specs} <= {"CertificateAuthority"}
    return [(s["verb"], s["object"]["name"], s["user"], s["authenticatedBy"]) for s in specs]


def states(replica: Replica) -> list[int]:
    return [each.number for each in replica.authority.generations]


async def test_all_trust_a_generation_before_it_signs_and_turn_to_it_together(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, other = two(tmp_path, store, clock)
    old = one.leaf()
    await one.rotation.rotate(60, 600)
    await other.rotation.look()
    assert states(one) == states(other) == [1, 2]
    assert one.authority.client_ca_pem == other.authority.client_ca_pem
    assert one.authority.client_ca_pem.count(b"BEGIN") == 2
    assert other.authority.signing.number == 1
    assert other.authority.generations[1].renew_within_s == 600
    clock.now += timedelta(seconds=61)
    assert one.authority.signing.number == other.authority.signing.number == 2
    for replica in (one, other):
        assert replica.authority.standing(old.issuer) is Standing.OLDER
        assert replica.authority.standing(one.leaf().issuer) is Standing.CURRENT
        assert replica.authority.server_ca_pem.count(b"BEGIN") == 1
    before = other.in_force
    await other.rotation.look()
    await other.rotation.look()
    assert other.in_force == before + 1, "once for each change"


async def test_who_knows_an_older_root_trusts_the_new_server(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, _ = two(tmp_path, store, clock)
    known = [one.authority.server_ca_pem]
    for _ in range(2):
        await one.rotation.rotate(0, 600)
        clock.now += timedelta(seconds=1)
        known.append(one.authority.server_ca_pem)
    certificate, _ = one.authority.server_files("s", ["localhost"])
    leaf, *chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    assert len(chain) == 2, "each older root vouches for itself"
    for pem in known:
        roots = x509.load_pem_x509_certificates(pem)
        checker = verification.PolicyBuilder().store(verification.Store(roots)).time(clock.now)
        checker.build_server_verifier(x509.DNSName("localhost")).verify(leaf, chain)


async def test_a_generation_is_made_by_itself_before_the_last_third_of_its_life(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, other = two(tmp_path, store, clock)
    clock.now += generations.CA_LIFETIME * 2 / 3 - timedelta(days=1)
    await one.rotation.look()
    assert states(one) == [1]
    clock.now += timedelta(days=2)
    await one.rotation.look()
    await other.rotation.look()
    await one.rotation.look()
    assert states(one) == states(other) == [1, 2]
    clock.now += timedelta(days=1)
    await one.rotation.look()
    assert states(one) == [1, 2]


async def test_what_a_person_wants_is_done_once_whatever_crashes(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, _ = two(tmp_path, store, clock)
    (one.directory / rotation.WANTED).write_text("2 0 600")
    await one.rotation.look()
    assert states(one) == [1, 2]
    assert not (one.directory / rotation.WANTED).exists()
    (one.directory / rotation.WANTED).write_text("2 0 600")
    await one.rotation.look()
    assert states(one) == [1, 2], "as after a crash before the file was removed"
    (one.directory / rotation.WANTED).write_text("what")
    await one.rotation.look()
    assert not (one.directory / rotation.WANTED).exists()


async def test_a_process_that_died_after_the_decision_has_it_at_its_next_start(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, other = two(tmp_path, store, clock)
    await one.rotation.rotate(0, 600)
    shutil.rmtree(one.directory / "2")
    (one.directory / ".2.torn").mkdir()
    again = Replica(one.directory, store, clock)
    assert states(again) == [1]
    await again.rotation.share()
    await other.rotation.share()
    assert again.authority.generations[1].root.key_id == other.authority.generations[1].root.key_id


async def test_a_database_that_lacks_a_generation_gets_it_from_the_directory(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, other = two(tmp_path, store, clock)
    await one.rotation.rotate(0, 600)
    empty = await Store.open(data_dir=tmp_path / "restored")
    try:
        for replica in (one, other):
            shutil.rmtree(other.directory / "2", ignore_errors=True)
            await Replica(replica.directory, empty, clock).rotation.share()
        assert generations.numbers(other.directory) == [2]
    finally:
        await empty.close()


async def test_only_who_has_the_generation_before_can_open_the_next(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, _ = two(tmp_path, store, clock)
    await one.rotation.rotate(0, 600)
    rows = await store.read(authorities.all_of)
    assert "PRIVATE" not in rows[1].sealed
    stranger = Replica(tmp_path / "stranger", store, clock)
    with pytest.raises(AuthorityDamaged, match="not the one"):
        await stranger.rotation.share()
    with pytest.raises(AuthorityDamaged, match="follows another"):
        generations.unseal(rows[1].sealed, stranger.authority.generations[0], stranger.directory)


async def test_an_ended_generation_is_trusted_by_nobody(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, other = two(tmp_path, store, clock)
    old = one.leaf()
    (one.directory / rotation.ENDED).write_text("1 0 0")
    await one.rotation.look()
    assert one.authority.standing(old.issuer) is Standing.CURRENT, "it signs, so it stays"
    await one.rotation.rotate(0, 600)
    clock.now += timedelta(seconds=1)
    (one.directory / rotation.ENDED).write_text("1 0 0")
    await one.rotation.look()
    await other.rotation.look()
    for replica in (one, other, Replica(one.directory, store, clock)):
        assert replica.authority.standing(old.issuer) is Standing.ENDED
        assert replica.authority.client_ca_pem.count(b"BEGIN") == 1
        with pytest.raises(Unauthorized):
            replica.authority.check(old.issuer)
        replica.authority.check(one.leaf().issuer)


async def test_a_certificate_that_does_not_say_whose_key_signed_it_is_not_taken_for_ours(
    tmp_path: Path, store: Store, clock: Clock
) -> None:
    one, _ = two(tmp_path, store, clock)
    assert one.authority.standing("flightctl-client-signer-ca") is Standing.ENDED
    assert one.authority.standing("somebody else's") is Standing.FOREIGN


def test_the_command_refuses_what_would_strand_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC))
    cases: tuple[tuple[tuple[Any, ...], str], ...] = (
        (("--end", "1"), "can be ended"),
        (("--end", "7"), "can be ended"),
        (("--rotate", "--overlap", "-1"), "0 at least"),
    )
    for words, expected in cases:
        assert ca.main(["--data", str(tmp_path), *words]) == 1
        assert expected in capsys.readouterr().err
    assert ca.main(["--data", str(tmp_path / "nowhere")]) == 1
    assert ca.main(["--data", str(tmp_path)]) == 0
    assert "signs" in capsys.readouterr().out


async def test_who_changed_the_authority_is_in_the_audit_once_however_many_servers_there_are(
    tmp_path: Path, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two(tmp_path, store, clock)
    await one.rotation.look()
    assert await told(store) == [], "that it is there is no change"
    monkeypatch.setenv("SUDO_USER", "ada")
    for replica in (one, other):  # as by the command, on both
        asked = rotation.Asked(2, 0.0, 60, ca._person())
        generations.write(replica.directory / rotation.WANTED, asked.text().encode())
    for replica in (one, other, one, other):
        await replica.rotation.look()
    who = ca._person()
    assert who.endswith(" (ada)")
    rotated = ("rotate", "generation-2", who, "data directory")
    assert await told(store) == [rotated]

    clock.now += timedelta(seconds=1)
    for replica in (one, other):
        ended = rotation.Asked(1, by="root")
        generations.write(replica.directory / rotation.ENDED, ended.text().encode())
        await replica.rotation.look()
    assert await told(store) == [rotated, ("end", "generation-1", "root", "data directory")]

    clock.now += generations.CA_LIFETIME * 0.7
    await one.rotation.look()
    due = ("rotate", "generation-3", "system:homeport:rotation", "service")
    assert (await told(store))[2:] == [due]
