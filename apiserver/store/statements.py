"""Statements that are written as text, being made of parts; compiled once for each text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, CursorResult, text


@cache
def _compiled(sql: str, dialect: Any) -> tuple[str, tuple[str, ...]]:
    """The driver's own text and the order of its parameters. Of these texts there are a dozen, and
    compiling one costs more than handing it to the database."""
    compiled = text(sql).compile(dialect=dialect)
    return compiled.string, tuple(compiled.positiontup or ())


def run(connection: Connection, sql: str, parameters: Mapping[str, Any]) -> CursorResult[Any]:
    statement, order = _compiled(sql, connection.dialect)
    return connection.exec_driver_sql(statement, tuple([parameters[name] for name in order]))
