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
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Executable,
    Insert,
    Text,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.sql import ClauseElement

Values = Mapping[str, Any]
# A text of so many rows is built at once; the last bodies of what was deleted are among them.
GATHERED_MAX = 500
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
        self._gathered: dict[str, str | None] = {}

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
        """Once for each of `rows`, of which no two are for one key; nothing at all where there are
        none."""
        text, order, _ = self._on(connection)
        every = [tuple([values[name] for name in order]) for values in rows]
        if not every:
            return
        gathered = self._gathered[connection.dialect.name]
        cursor = connection.connection.cursor()
        try:
            for start in range(0, len(every), GATHERED_MAX):
                some = every[start : start + GATHERED_MAX]
                if len(some) == 1:
                    cursor.execute(text, some[0])
                elif gathered and (told := _told(order, some)):
                    cursor.execute(gathered, (told,))
                else:
                    cursor.executemany(text, some)
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
            self._gathered[dialect.name] = _gathering(statement, compiled.string, order, dialect)
            self._compiled[dialect.name] = found
        return found


# --- many rows in one statement -------------------------------------------------------------

_JSON_TYPES = ((BigInteger, "BIGINT"), (Text, "TEXT"))


def _gathering(statement: Any, text: str, order: Sequence[str], dialect: Any) -> str | None:
    """An INSERT that takes all its rows out of one JSON text. The driver's `executemany` makes a
    statement of each row, which costs PostgreSQL, and us, several times what the row does. None
    where it is not to be had: SQLite has no round trips, and JSON holds no bytes."""
    if dialect.name == "sqlite" or not isinstance(statement, Insert):
        return None
    columns = {column.key: column for column in statement.table.columns}
    types = [
        next((name for type_, name in _JSON_TYPES if isinstance(columns[key].type, type_)), None)
        for key in order
        if key in columns
    ]
    if None in types or len(types) != len(order):
        return None
    head, _, rest = text.partition(" VALUES (")
    _, _, tail = rest.partition(")")
    quote = dialect.identifier_preparer.quote
    names = [quote(columns[key].name) for key in order]
    rows = ", ".join(f"{name} {type_}" for name, type_ in zip(names, types, strict=True))
    # Names and types are of our own tables.
    taken = f"SELECT {', '.join(names)} FROM json_to_recordset(CAST(%s AS json)) AS r({rows})"  # noqa: S608
    return f"{head} {taken}{tail}"


def _told(order: Sequence[str], rows: Sequence[Sequence[Any]]) -> str | None:
    """The rows as such a text; None with a NUL in one, which is no character of PostgreSQL's, and
    which the driver is taught to write as something else."""
    text = orjson.dumps([dict(zip(order, row, strict=True)) for row in rows]).decode()
    return None if "\\u0000" in text else text
