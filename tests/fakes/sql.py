"""What a database itself says, past the service: for judging what the service did to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool


def place(data: Path, database: str) -> str:
    """The URL of a service's database, given what it was started with."""
    return database or f"sqlite:///{data / 'homeport.db'}"


Look = Callable[[str], Sequence[Sequence[Any]]]


def rows(url: str, statement: str) -> Sequence[Sequence[Any]]:
    """The answer to one statement."""
    with looking(url) as look:
        return look(statement)


@contextmanager
def looking(url: str) -> Iterator[Look]:
    """For many statements, each of which sees what is there when it is asked."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda statement: connection.exec_driver_sql(statement).all()


class Statements:
    """Counts what SQLite itself says that it runs, transactions too, on connections that are opened
    from now on. One statement for many rows is as many to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        event.listen(Engine, "connect", self._trace)

    def _trace(self, connection: Any, _record: object) -> None:
        if not hasattr(connection, "set_trace_callback"):
            return  # PostgreSQL's
        connection.set_trace_callback(lambda text: self.seen.append(" ".join(text.split())[:60]))

    def close(self) -> None:
        event.remove(Engine, "connect", self._trace)
