"""What a database itself says, past the service: for judging what the service did to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool


def place(data: Path, database: str) -> str:
    """The URL of a service's database, given what it was started with."""
    return database or f"sqlite:///{data / 'homeport.db'}"


def rows(url: str, statement: str) -> Sequence[Sequence[Any]]:
    """The answer to one statement."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    with create_engine(parsed, poolclass=NullPool).connect() as connection:
        return connection.exec_driver_sql(statement).all()
