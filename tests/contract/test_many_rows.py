"""Rows that are written together are those that would have been written one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select

from apiserver.store import Store
from apiserver.store.prepared import Prepared
from apiserver.store.tables import CHANGE, COUNTER
from resources.kind import Json

WORDS = ["", "plain", 'qu"ote', "back\\slash", "\\u0041", "ü日本", "new\nline", "{}", "null", "%s"]
NUL = "with \0 in it"


def row(version: int, word: str) -> Json:
    texts = dict.fromkeys(("kind", "namespace", "name", "uid", "type"), word)
    old: Json = dict.fromkeys(("old_labels", "old_fields", "new_labels"), None)
    return texts | old | {"resource_version": version, "new_fields": word, "body": None, "at": 7}


@pytest.mark.parametrize("words", [WORDS, WORDS[:1], [], [*WORDS, NUL], ["x"] * 1_001])
async def test_what_is_written_together_is_read_as_it_was_told(
    words: list[str], database_url: str, tmp_path: Path
) -> None:
    store = await Store.open(database_url, data_dir=tmp_path)
    statement = Prepared(insert(CHANGE))
    rows = [row(number, word) for number, word in enumerate(words, 1)]
    await store.write(lambda tx: statement.run_many(tx.connection, rows))
    found = await store.read(
        lambda s: [
            dict(each._mapping)
            for each in s.connection.execute(select(CHANGE).order_by(CHANGE.c.resource_version))
        ]
    )
    await store.close()
    kept = "\0" if not database_url else "�"  # PostgreSQL has no NUL
    assert found == [
        {key: v.replace("\0", kept) if isinstance(v, str) else v for key, v in each.items()}
        for each in rows
    ]


async def test_what_is_there_already_is_added_to(database_url: str, tmp_path: Path) -> None:
    store = await Store.open(database_url, data_dir=tmp_path)
    for by in (1, 10):
        await store.write(
            lambda tx, by=by: [tx.tally(("n", "f", "d", str(state)), by) for state in range(3)]  # type: ignore[misc]
        )
    found = await store.read(lambda s: s.connection.execute(select(COUNTER.c.n)).scalars().all())
    await store.close()
    assert found == [11, 11, 11]
