"""Statements of the hot paths: built and compiled once, handed to the driver as they are.

SQLAlchemy remembers compiled texts too, but finds them again by walking the statement, and wraps
every answer: for a statement that runs thousands of times a second that is more than the database
does for it. Here a run is one look-up and one call of the driver.

Safe because every column of our tables is text, a number or bytes, which both drivers take and give
as they are, and because a cursor is always read to its end and closed: one that stays open would
hold an old snapshot (see `SqliteDatabase._drop`). What the driver raises goes up as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ARRAY, Connection, Executable, Text, any_, bindparam, func, select
from sqlalchemy.sql import ClauseElement

Values = Mapping[str, Any]
# Of the dialect's name, for the few statements that SQL does not have in common.
Maker = Callable[[str], Any]


def among(dialect: str, column: Any, name: str) -> Any:
    """SQL for rows whose `column` is one of the texts in the parameter `name` (`texts`): one
    statement for however many, where SQLAlchemy's `in_` is written anew for each number."""
    if dialect == "sqlite":
        each = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(each.c.value))
    return column == any_(bindparam(name, type_=ARRAY(Text)))


def texts(connection: Connection, values: Iterable[str]) -> Any:
    """What `among` takes."""
    listed = list(values)
    return orjson.dumps(listed).decode() if connection.dialect.name == "sqlite" else listed


class Prepared:
    """One statement with named parameters. `columns` are those that an INSERT or UPDATE sets from
    parameters of the same names; without them an INSERT sets all."""

    def __init__(self, statement: Executable | Maker, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}

    def rows(self, connection: Connection, values: Values) -> list[dict[str, Any]]:
        """All rows of the answer, by column."""
        text, order, names = self._on(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text, tuple([values[name] for name in order]))
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            cursor.close()

    def first(self, connection: Connection, values: Values) -> dict[str, Any] | None:
        """The first row of the answer."""
        found = self.rows(connection, values)
        return found[0] if found else None

    def run(self, connection: Connection, values: Values) -> None:
        text, order, _ = self._on(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(text, tuple([values[name] for name in order]))
        finally:
            cursor.close()

    def run_many(self, connection: Connection, rows: Iterable[Values]) -> None:
        """Once for each of `rows`; nothing at all where there are none."""
        text, order, _ = self._on(connection)
        every = [tuple([values[name] for name in order]) for values in rows]
        if not every:
            return
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(text, every)
        finally:
            cursor.close()

    def _on(self, connection: Connection) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            statement: Any = self._statement
            if not isinstance(statement, ClauseElement):
                statement = statement(dialect.name)
            compiled = statement.compile(dialect=dialect, column_keys=self._columns)
            given = {name for name, bind in compiled.binds.items() if not bind.required}
            assert not given, f"write literal_column for {given}: parameters come with each run"
            order = tuple(compiled.positiontup or ())
            # What the answer is made of; nothing for a statement that has none.
            found = compiled.string, order, tuple(c.key for c in statement.exported_columns)
            # Two threads may both come here; they find the same.
            self._compiled[dialect.name] = found
        return found
