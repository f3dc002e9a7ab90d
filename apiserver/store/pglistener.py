"""Hears of the commits of other processes: LISTEN on a connection of its own, and a look besides.

Each commit notifies with the version that it made. A notification may be lost with the connection,
so the version is read after each LISTEN and again every second: a lost one delays, by a second.
What this process has committed itself it knows better (see `hub`), and passes over here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import structlog

from apiserver.store.database import Publish
from apiserver.store.dialect import CHANNEL

# How long a commit may go unseen whose notification was lost.
FOLLOW_S = 1.0
# An answer that takes longer comes from a server, or over a network, that is gone.
ANSWER_S = 5.0
RETRY_S = (0.2, 1.0)

log = structlog.get_logger()


async def follow(
    connect: Mapping[str, Any], publish: Publish, is_own: Callable[[int], bool]
) -> None:
    """Publish what is committed, until cancelled; through outages of the database. `is_own` knows
    the sessions, by the id that the server gave them, in which this process commits."""
    is_away = False
    while True:
        try:
            async with asyncio.timeout(ANSWER_S):
                connection = await psycopg.AsyncConnection.connect(**connect, autocommit=True)
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}".encode())
                if is_away:
                    log.info("database heard again")
                is_away = False
                await _hear(connection, publish, is_own)
        except (psycopg.Error, OSError) as error:  # a TimeoutError is one
            if not is_away:
                log.warning("database not heard", why=str(error))
            is_away = True
            await asyncio.sleep(random.uniform(*RETRY_S))  # noqa: S311 - jitter


async def _hear(
    connection: psycopg.AsyncConnection[Any], publish: Publish, is_own: Callable[[int], bool]
) -> None:
    while True:
        async with asyncio.timeout(ANSWER_S):
            cursor = await connection.execute("SELECT version FROM store_meta")
            row = await cursor.fetchone()
        if row is not None:
            publish(row[0])
        async for told in connection.notifies(timeout=FOLLOW_S):
            if not is_own(told.pid):
                publish(int(told.payload))
