"""Where transactions begin and end: by the driver's own call, for each read is one.

SQLAlchemy knows of a transaction only when a statement went through it, which those of `prepared`
do not; where one did, it must hear of the end, and tells the driver.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


def begin(connection: Connection, statement: str) -> None:
    """Run the statements that are the beginning."""
    _driver(connection).execute(statement)


def session_of(connection: Connection) -> int:
    """The id that the server has given to the session."""
    return int(_driver(connection).info.backend_pid)


def commit(connection: Connection) -> None:
    if connection.in_transaction():
        connection.commit()
    else:
        _driver(connection).commit()


def roll_back(connection: Connection) -> None:
    if connection.in_transaction():
        connection.rollback()
    else:
        _driver(connection).rollback()


def _driver(connection: Connection) -> Any:
    """The driver's connection."""
    return connection.connection.driver_connection
