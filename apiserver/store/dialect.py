"""Where SQLite and PostgreSQL differ in what we say to them. Everything else is said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

# Any constant: all writers of one database take the same one.
_ADVISORY_LOCK = 7_443_001
# On which commits are announced; of one database, as PostgreSQL has it.
CHANNEL = "homeport"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few words that are not common to both."""

    name: str

    @property
    def is_sqlite(self) -> bool:
        return self.name == "sqlite"

    def upsert(self, table: Table) -> Any:
        """An INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def json_object(self, pairs: dict[str, str]) -> str:
        """SQL for a JSON text of constant keys and SQL values. Keys are ours, never a user's."""
        if self.is_sqlite:
            arguments = ", ".join(f"'{key}', {value}" for key, value in pairs.items())
            return f"json_object({arguments})"
        # Not json_build_object: it asks for the type of each argument in each row, and takes three
        # times as long.
        parts = ", ',', ".join(
            f"""'"{key}":', coalesce(to_json({value}), 'null')""" for key, value in pairs.items()
        )
        return f"concat('{{', {parts}, '}}')"

    def distinct_from(self, left: str, right: str) -> str:
        """SQL for "differ", where NULL equals NULL."""
        return f"{left} IS NOT {right}" if self.is_sqlite else f"{left} IS DISTINCT FROM {right}"

    def among(self, column: str, query: str) -> str:
        """SQL for rows whose `column`, which has an index, is among what `query` selects.

        From an array PostgreSQL looks up each, however small it thinks that the table is.
        """
        if self.is_sqlite:
            return f"{column} IN ({query})"
        return f"{column} = ANY(ARRAY({query}))"

    def json_rows(self, parameter: str, columns: int) -> tuple[list[str], str]:
        """SQL for the columns of a JSON array of arrays, and where they are selected from."""
        if self.is_sqlite:
            names = [f"json_extract(value, '$[{number}]')" for number in range(columns)]
            return names, f"json_each({parameter})"
        names = [f"(value ->> {number})" for number in range(columns)]
        return names, f"json_array_elements(CAST({parameter} AS json))"

    def greatest(self, left: str, right: str) -> str:
        return f"max({left}, {right})" if self.is_sqlite else f"greatest({left}, {right})"

    def least(self, left: str, right: str) -> str:
        return f"min({left}, {right})" if self.is_sqlite else f"least({left}, {right})"

    @property
    def taking_store_lock(self) -> str:
        """First statement of a writing transaction, on its own. SQLite's BEGIN IMMEDIATE is it."""
        return "" if self.is_sqlite else f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"

    def scratch(self, connection: Connection, name: str) -> None:
        """An empty scratch table of this connection's own. It was made when the connection was
        opened, outside any transaction that could undo it; another mutation of this transaction may
        have used it."""
        connection.exec_driver_sql(f"DELETE FROM {name}")  # noqa: S608 - a name of ours
