"""The servers' certificate from outside, by a clock of the test's: ordered once, renewed in time,
and the built-in authority's when there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from apiserver.pki import issued, signers
from apiserver.pki.issuing import Outsider
from apiserver.pki.orders import Answer, Declined, Issued, Order, Pending
from apiserver.pki.presenting import LOOK_S, Presenting
from tests.fakes.service import Authority

LIFE = timedelta(days=90)


@dataclass
class Told:
    """Signs what the CSR asks, or answers as it is told."""

    site: Site
    answer: Answer | None = None
    orders: list[Order] = field(default_factory=list)
    title: str = "the signer"
    forgotten: int = 0

    async def ask(self, order: Order) -> Answer:
        self.orders.append(order)
        return self.answer or Issued(self.site.sign(order))

    async def forget(self, order: Order) -> None:
        self.forgotten += 1


class Site:
    def __init__(self, directory: Path) -> None:
        self.at = datetime.now(UTC)
        self.authority = Authority("outside")
        self.signer = Told(self)
        self.names = ["fleet.example.com", "127.0.0.1"]
        self.directory = directory
        self.changes = 0
        self.start()

    def start(self) -> None:
        trust = issued.trust_of(self.authority.pem)
        outsider = Outsider(self.signer, frozenset({signers.SERVER_SVC}), trust)
        self.presenting = Presenting(
            self.directory, outsider, self.names, lambda: self.at, self._changed, lambda: 0.5
        )

    async def _changed(self) -> None:
        self.changes += 1

    def sign(self, order: Order) -> bytes:
        csr = order.request.csr
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        signed = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(self.authority.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.at - timedelta(seconds=1))
            .not_valid_after(self.at + LIFE)
            .add_extension(names, critical=False)
            .add_extension(usage, critical=False)
            .sign(self.authority.key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_it_is_ordered_once_and_put_in_force(site: Site) -> None:
    assert site.presenting.files() is None
    assert await site.presenting.step() == LOOK_S
    assert site.presenting.files() is not None
    assert site.presenting.file.stat().st_mode & 0o777 == 0o600
    site.start()
    for _ in range(3):
        assert await site.presenting.step() == LOOK_S
    assert len(site.signer.orders) == 1
    assert site.changes == 2, "once when it came, once after the restart"


async def test_it_is_renewed_with_a_third_of_its_life_left_under_a_new_key(site: Site) -> None:
    await site.presenting.step()
    site.at += LIFE * 0.6
    await site.presenting.step()
    assert len(site.signer.orders) == 1
    site.at += LIFE * 0.1
    await site.presenting.step()
    first, second = site.signer.orders
    assert first.uid != second.uid
    assert first.request.public_key != second.request.public_key
    assert site.changes == 2


async def test_one_that_nobody_renews_is_presented_to_its_end_and_no_longer(site: Site) -> None:
    await site.presenting.step()
    site.signer.answer = Pending("a person looks at it")
    site.at += LIFE * 0.9
    await site.presenting.step()
    assert site.presenting.files() is not None
    assert site.changes == 1
    site.at += LIFE * 0.2
    await site.presenting.step()
    assert site.presenting.files() is None
    assert site.changes == 2


async def test_an_order_is_the_same_after_a_restart_until_it_is_for_other_names(site: Site) -> None:
    site.signer.answer = Pending("a person looks at it")
    waits = [await site.presenting.step() for _ in range(3)]
    site.start()
    await site.presenting.step()
    assert waits == [0.75, 1.5, 3.0]
    assert len({order.uid for order in site.signer.orders}) == 1
    assert len({order.request.csr.signature for order in site.signer.orders}) == 1
    site.names = [*site.names, "new.example.com"]
    site.start()
    await site.presenting.step()
    assert len({order.uid for order in site.signer.orders}) == 2


async def test_other_names_are_ordered_though_the_certificate_is_good(site: Site) -> None:
    await site.presenting.step()
    site.names = [*site.names, "new.example.com"]
    site.start()
    assert site.presenting.files() is None
    await site.presenting.step()
    assert site.presenting.files() is not None


@pytest.mark.parametrize(
    "answer", [Declined("not ours"), Issued(b"hope")], ids=["refused", "garbage"]
)
async def test_no_bad_answer_is_the_last(site: Site, answer: Answer) -> None:
    site.signer.answer = answer
    assert await site.presenting.step() < LOOK_S
    assert site.presenting.files() is None
    assert site.signer.forgotten == isinstance(answer, Declined)
    site.signer.answer = None
    await site.presenting.step()
    assert site.presenting.files() is not None


@pytest.mark.parametrize("text", ["", "hope", "-----BEGIN EC PRIVATE KEY-----\n"], ids=str)
async def test_files_that_are_damaged_are_made_anew(site: Site, text: str) -> None:
    site.presenting.file.write_text(text)
    site.presenting.order_file.write_text(text)
    await site.presenting.step()
    assert site.presenting.files() is not None
