"""Who of several processes does what one is enough for. An economy, never a safeguard.

The holder renews; whoever comes after the end takes over. Clocks of processes may differ and a
holder may have slept, so two may believe for a moment that they hold it: what is done under a lease
is safe to be done twice, since it is judged again under the store lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam

from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.tables import LEASE

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction


def _taking(dialect: str) -> Any:
    insert = Dialect(dialect).upsert(LEASE)
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": insert.excluded.holder, "expires_at": insert.excluded.expires_at},
        where=(LEASE.c.holder == insert.excluded.holder) | (LEASE.c.expires_at < bindparam("now")),
    ).returning(LEASE.c.holder)


_TAKE = Prepared(_taking, ("name", "holder", "expires_at"))


def take(tx: Transaction, name: str, holder: str, for_s: float) -> bool:
    """Whether `holder` has it now, new or renewed."""
    now = tx.now.timestamp()
    values = {"name": name, "holder": holder, "expires_at": now + for_s, "now": now}
    tx.writes += 1
    return _TAKE.first(tx.connection, values) is not None
