"""Rows of devices that are each to become something else, written in one statement.

What they become was drawn in Python, a row at a time; the database is told all of it at once, as a
JSON array that it takes apart itself.
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

    from apiserver.store.dialect import Dialect

_CASTS: tuple[tuple[type[types.TypeEngine[Any]], str], ...] = (
    (BigInteger, "BIGINT"),
    (Float, "DOUBLE PRECISION"),
)


def rewrite(
    connection: Connection,
    dialect: Dialect,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Give each device, by its uid, its values in these columns."""
    told = dumps([[row["uid"], *(row[column] for column in columns)] for row in rows])
    cursor = connection.connection.cursor()
    try:
        cursor.execute(_statement(dialect, tuple(columns)), (told, told))
    finally:
        cursor.close()


@cache
def _statement(dialect: Dialect, columns: tuple[str, ...]) -> str:
    mark = "?" if dialect.is_sqlite else "%s"
    found, source = dialect.json_rows(mark, len(columns) + 1)
    selected = ", ".join(
        f"{_cast(column, value)} AS v{number}"
        for number, (column, value) in enumerate(zip(("uid", *columns), found, strict=True))
    )
    moved = ", ".join(f"{column} = x.v{number}" for number, column in enumerate(columns, 1))
    among = dialect.among("device.uid", f"SELECT {found[0]} FROM {source}")
    return (
        f"UPDATE device SET {moved} FROM (SELECT {selected} FROM {source}) x"
        f" WHERE device.uid = x.v0 AND {among}"
    )


def _cast(column: str, value: str) -> str:
    """Out of JSON everything comes as text on PostgreSQL."""
    kind = DEVICE.c[column].type
    name = next((name for type_, name in _CASTS if isinstance(kind, type_)), None)
    return f"CAST({value} AS {name})" if name else value
