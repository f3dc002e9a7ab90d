"""Rows of devices that are each to become something else, written in one statement on PostgreSQL,
where a statement for each is a round trip for each.

What they become was drawn in Python, a row at a time; the database is told all of it at once, as
JSON that it takes apart itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Float, types

from apiserver.store.objects import dumps
from apiserver.store.tables import DEVICE

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TYPES: tuple[tuple[type[types.TypeEngine[Any]], str], ...] = (
    (BigInteger, "BIGINT"),
    (Float, "DOUBLE PRECISION"),
)


def rewrite(
    connection: Connection, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Give each device, by its uid, its values in these columns."""
    told = dumps([{"uid": row["uid"]} | {c: row[c] for c in columns} for row in rows])
    uids = [row["uid"] for row in rows]
    cursor = connection.connection.cursor()
    try:
        cursor.execute(_statement(tuple(columns)), (told, uids))
    finally:
        cursor.close()


@cache
def _statement(columns: tuple[str, ...]) -> str:
    moved = ", ".join(f"{column} = x.{column}" for column in columns)
    typed = ", ".join(f"{column} {_type(column)}" for column in ("uid", *columns))
    return (
        f"UPDATE device SET {moved} FROM json_to_recordset(CAST(%s AS json)) AS x({typed})"
        # From an array each is looked up, however small the table is thought to be.
        " WHERE device.uid = x.uid AND device.uid = ANY(CAST(%s AS text[]))"
    )


def _type(column: str) -> str:
    kind = DEVICE.c[column].type
    return next((name for type_, name in _TYPES if isinstance(kind, type_)), "TEXT")
