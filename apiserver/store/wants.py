"""What a template version takes from outside for some devices only, value by value.

A row says what is wanted; the controllers fetch it and say what came, which then is so for ever in
that version, or why nothing came. Devices are not told one by one: a device that needs what is not
there keeps the row's `mark`, and is left alone as long as some row has that mark. Whatever is new
about a row changes its mark, what came takes it away, so nobody can be forgotten who waits, and a
value that ten thousand devices wait for is one row written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, delete, func, select, update

from apiserver.store.tables import FROZEN_VALUE as VALUE

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction
    from resources.kind import Json

# Digests in one statement.
_SOME = 5_000


@dataclass(frozen=True, slots=True)
class Value:
    """One row. Without `manifest` it is waited for, by devices that have its `mark`."""

    key: str
    mark: str = ""
    manifest: str = ""
    problem: str = ""
    is_passing: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that some device needs: of which provider, and what its parameters came to."""

    key: str
    input: str
    values: Mapping[str, str]


def waits(device: str) -> str:
    """SQL for a device that waits for what is not there, or failed for it."""
    return f"EXISTS (SELECT 1 FROM frozen_value v WHERE v.mark = {device}.waits_for)"


def fails(device: str) -> str:
    """SQL for one that failed for it: it will not come without somebody's doing."""
    return (
        f"EXISTS (SELECT 1 FROM frozen_value v WHERE v.mark = {device}.waits_for"
        " AND v.problem IS NOT NULL AND v.passing = 0)"
    )


def waiting(device: str) -> str:
    """SQL for one that waits for what will come by itself."""
    return f"({waits(device)} AND NOT {fails(device)})"


def refused(device: str) -> str:
    """SQL for one that was told why it cannot have a document, and has nothing else to expect."""
    told = f"({device}.waits_for IS NOT NULL OR {device}.render_needed = 0)"
    return f"({broken(device)} AND {told})"


def broken(device: str) -> str:
    """SQL for one for which none could be made."""
    expects = f"({device}.waits_for IS NULL OR {fails(device)})"
    return f"({device}.render_error IS NOT NULL AND {expects})"


def first_mark(key: str) -> str:
    return f"{key}#1"


def by_key(snapshot: Snapshot, keys: Collection[str]) -> dict[str, Value]:
    """Of these, those that there are."""
    found: dict[str, Value] = {}
    wanted = sorted(keys)
    for start in range(0, len(wanted), _SOME):
        query = select(VALUE).where(VALUE.c.key.in_(wanted[start : start + _SOME]))
        for row in snapshot.connection.execute(query):
            found[row.key] = Value(
                row.key, row.mark or "", row.manifest or "", row.problem or "", bool(row.passing)
            )
    return found


def count(snapshot: Snapshot, version: str) -> int:
    query = select(func.count()).select_from(VALUE).where(VALUE.c.version == version)
    return int(snapshot.connection.execute(query).scalar_one())


def want(tx: Transaction, version: str, wanted: Iterable[Wanted]) -> None:
    """Note what is to be fetched. What is noted already stays as it is."""
    rows = [
        {
            "key": each.key,
            "version": version,
            "input": each.input,
            "reference": orjson.dumps(dict(each.values)).decode(),
            "revision_of": each.values.get("targetRevision", ""),
            "mark": first_mark(each.key),
        }
        for each in wanted
    ]
    if rows:
        tx.writes += 1
        tx.connection.execute(tx.dialect.upsert(VALUE).on_conflict_do_nothing(), rows)


def page(
    snapshot: Snapshot, version: str, *, is_open: bool, after: str, limit: int
) -> list[dict[str, Any]]:
    """By key, above the key `after`: what is waited for, or what came. Of a commit that is waited
    for, `pin` is where the same branch of the same provider stood when others were fetched."""
    missing = VALUE.c.manifest.is_(None)
    query = (
        select(VALUE)
        .where(VALUE.c.version == version, VALUE.c.key > after, missing if is_open else ~missing)
        .order_by(VALUE.c.key)
        .limit(limit)
    )
    rows = snapshot.connection.execute(query).all()
    pins = _pins(snapshot, version) if is_open and any(r.revision_of for r in rows) else {}
    return [_shown(row, pins.get((row.input, row.revision_of))) for row in rows]


def _pins(snapshot: Snapshot, version: str) -> dict[tuple[str, str], str]:
    query = (
        select(VALUE.c.input, VALUE.c.revision_of, func.max(VALUE.c.revision).label("revision"))
        .where(VALUE.c.version == version, VALUE.c.manifest.is_not(None), VALUE.c.revision_of != "")
        .group_by(VALUE.c.input, VALUE.c.revision_of)
    )
    return {(r.input, r.revision_of): r.revision for r in snapshot.connection.execute(query)}


def _shown(row: Any, pin: str | None) -> Json:
    shown: Json = {"key": row.key, "input": row.input, "values": orjson.loads(row.reference)}
    if row.manifest is not None:
        shown |= {"manifest": row.manifest, "revision": row.revision, "files": row.files}
        shown |= {"updatedAt": row.updated_at} | ({"etag": row.etag} if row.etag else {})
    if row.problem is not None:
        shown |= {"problem": row.problem, "isPassing": bool(row.passing)}
    return shown | ({"pin": pin} if pin else {})


def open_keys(snapshot: Snapshot, version: str, keys: Collection[str]) -> dict[str, Value]:
    """Of these, those of the version that are waited for."""
    query = select(VALUE.c.key).where(
        VALUE.c.key.in_(sorted(keys)), VALUE.c.version == version, VALUE.c.manifest.is_(None)
    )
    ours = set(snapshot.connection.execute(query).scalars())
    return by_key(snapshot, ours)


def came(tx: Transaction, key: str, outcome: Mapping[str, Any]) -> None:
    """Name what came. Who has the mark waits no more."""
    values = {
        "manifest": outcome["manifest"],
        "revision": outcome["revision"],
        "etag": outcome.get("etag"),
        "files": outcome.get("files") or 0,
        "updated_at": tx.timestamp,
        "mark": None,
        "problem": None,
        "passing": 0,
    }
    tx.writes += 1
    tx.connection.execute(update(VALUE).where(VALUE.c.key == key).values(values))


def failed(tx: Transaction, old: Value, problem: str, *, is_passing: bool) -> bool:
    """Note why nothing came. Whether that is news, which those who wait are to be told."""
    if (old.problem, old.is_passing) == (problem, is_passing):
        return False
    number = int(old.mark.rpartition("#")[2]) + 1
    values = {"problem": problem, "passing": int(is_passing), "mark": f"{old.key}#{number}"}
    tx.writes += 1
    tx.connection.execute(update(VALUE).where(VALUE.c.key == old.key).values(values))
    return True


def forget(connection: Connection, version: str) -> None:
    """The template version is gone."""
    connection.execute(delete(VALUE).where(VALUE.c.version == version))
