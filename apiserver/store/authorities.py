"""Generations of the certificate authority, as the processes on one database share them.

What is stored is sealed by its makers, and means nothing here. The first row of a number stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from apiserver.store.tables import AUTHORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiserver.store.snapshot import Snapshot, Transaction


@dataclass(frozen=True, slots=True)
class Shared:
    """One generation; `trusted_until` where a person ended it."""

    number: int
    fingerprint: str
    sealed: str
    trusted_until: str | None


def all_of(snapshot: Snapshot) -> Sequence[Shared]:
    """By number."""
    rows = snapshot.connection.execute(select(AUTHORITY).order_by(AUTHORITY.c.number))
    return [Shared(*row) for row in rows]


def add(tx: Transaction, number: int, fingerprint: str, sealed: str) -> bool:
    """Whether there was none of this number."""
    known = select(AUTHORITY.c.number).where(AUTHORITY.c.number == number)
    if tx.connection.execute(known).first() is not None:
        return False
    values = {"number": number, "fingerprint": fingerprint, "sealed": sealed}
    tx.connection.execute(insert(AUTHORITY), values)
    tx.writes += 1
    return True


def end(tx: Transaction, number: int, at: str) -> bool:
    """From `at` on that generation is trusted no more. An end that was said before stays: False."""
    statement = update(AUTHORITY).where(AUTHORITY.c.number == number)
    done = tx.connection.execute(
        statement.where(AUTHORITY.c.trusted_until.is_(None)).values(trusted_until=at)
    )
    tx.writes += 1
    return done.rowcount == 1
