"""`python -m apiserver restored`: says that the database was restored from a backup.

Run once, after the backup was put in place and before any server is started on it: a server that
has begun to serve may have told devices things that no longer hold. Run again it does no harm but
that all devices are awaited again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from apiserver.app import create_operations
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins import telling
from apiserver.config import KEYS_FILE
from apiserver.operations import Operations
from apiserver.store import (
    BadKeys,
    KeyFile,
    Store,
    StoreLocked,
    StoreTooNew,
    StoreUnavailable,
    Transaction,
    restoring,
)

WORD = "restored"
REASON = "SystemRestored"
_CALLER = Caller(name="system:homeport:restored", role=CONTROLLER)


def main(arguments: Sequence[str]) -> int:
    given = _options().parse_args(arguments)
    keys = given.encryption_keys
    key_file = KeyFile(keys) if keys else KeyFile(given.data / KEYS_FILE, True)
    if not given.database and not (given.data / "homeport.db").exists():
        print(f"error: there is no database in {given.data}", file=sys.stderr)
        return 1
    try:
        awaited = asyncio.run(_declared(given.database, given.data, key_file))
    except (StoreLocked, StoreTooNew, StoreUnavailable, BadKeys) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{_awaited(awaited)}; start the service")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"apiserver {WORD}",
        description="Say that the database was restored from a backup. No server may run.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the server's directory")
    add("--database", default="", help="postgresql://USER@HOST/NAME instead of SQLite in --data")
    add("--encryption-keys", type=Path, help="file of the keys that secrets are encrypted with")
    return parser


async def _declared(url: str, data: Path, key_file: KeyFile) -> int:
    store = await Store.open(url, data_dir=data, key_file=key_file)
    try:
        operations = create_operations(store)
        await operations.prepare()
        return await declare(operations)
    finally:
        await store.close()


async def declare(operations: Operations) -> int:
    """How many devices are awaited."""

    def restored(tx: Transaction) -> int:
        awaited = restoring.mark(tx)
        message = f"The database was restored from a backup; {_awaited(awaited)}."
        telling.tell(tx, telling.system("database"), REASON, message)
        return awaited

    return await operations.store.write(restored)


def _awaited(number: int) -> str:
    return "1 device is awaited" if number == 1 else f"{number} devices are awaited"
