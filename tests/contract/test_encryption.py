"""Secrets at rest, on both databases: the bytes that are stored, wrong keys, new keys, kills."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apiserver import app
from apiserver import resealing as rounds
from apiserver.__main__ import REFUSALS, said
from apiserver.builtins.events import STORED
from apiserver.config import settings_of
from apiserver.store import BadKeys, KeyFile, Snapshot, Store, Transaction, keys, resealing
from apiserver.store.sealing import Unopenable
from cli import kubeconfig
from resources import registry
from resources.kind import Json
from tests.fakes import apiserver_process, sql
from tests.fakes.waiting import PATIENCE_S

# Of the whole service `make test` has one run; what differs between databases is tried above it.
SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
REPOSITORY = registry.by_kind("Repository")
PLANTED = "hunter2-planted-in-the-store"
BLOB = b"a file with hunter2-planted-in-the-store inside"


def key_file(folder: Path, *names: str, seed: int = 0) -> KeyFile:
    """A file of these keys, the first of which writes. A name always is the same key."""
    folder.mkdir(exist_ok=True)
    path = folder / f"keys-{'-'.join(names)}-{seed}"
    secrets = [random.Random(f"{name}{seed}").randbytes(32) for name in names]
    lines = [f"{n} {base64.b64encode(s).decode()}\n" for n, s in zip(names, secrets, strict=True)]
    path.write_text("".join(lines))
    path.chmod(0o600)
    return KeyFile(path)


@asynccontextmanager
async def opened(url: str, data: Path, file: KeyFile | None) -> AsyncIterator[Store]:
    store = await Store.open(url, data_dir=data, key_file=file)
    try:
        yield store
    finally:
        await store.close()


def repository(name: str, secret: str = PLANTED) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-23T00:00:00Z",
        },
        "spec": {
            "type": "http",
            "url": "https://example.com",
            "httpConfig": {"username": "me", "password": secret, "token": f"{secret}-token"},
        },
    }


async def fill(store: Store, number: int = 1) -> None:
    def write(tx: Transaction) -> None:
        for n in range(number):
            tx.insert(REPOSITORY, repository(f"r{n}"))
            tx.put_content(BLOB + bytes([n]), is_secret=True)

    await store.write(write)


async def read(store: Store, number: int = 1) -> None:
    """All that `fill` wrote is there as it was."""

    def check(snapshot: Snapshot) -> None:
        for n in range(number):
            found = snapshot.get(REPOSITORY, "default", f"r{n}")
            assert found is not None
            assert found["spec"] == repository(f"r{n}")["spec"]
            blob = BLOB + bytes([n])
            assert snapshot.content(snapshot.digest_of(blob, is_secret=True)) == blob

    await store.read(check)


def stored(data: Path, url: str) -> bytes:
    """Every byte that the database keeps of us: its files, or every row of its tables."""
    if not url:
        return b"".join(path.read_bytes() for path in sorted(data.glob("homeport.db*")))
    names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    found = b""
    for (table,) in sql.rows(url, names):
        for row in sql.rows(url, f'SELECT * FROM "{table}"'):
            parts = (v if isinstance(v, bytes) else str(v).encode() for v in row)
            found += b"|".join(parts)
    return found


def keys_needed(data: Path, url: str) -> set[str]:
    return {name for (name,) in sql.rows(sql.place(data, url), "SELECT name FROM encryption_key")}


async def test_no_secret_is_in_the_bytes_of_the_database(database_url: str, tmp_path: Path) -> None:
    file = key_file(tmp_path / "keys", "one")
    async with opened(database_url, tmp_path, file) as store:
        await fill(store)
        assert PLANTED.encode() not in stored(tmp_path, database_url), "while it runs"
        key = await store.read(
            lambda s: s.keys.opened_text(s._meta["content_key"], f"content key of {s.store_uid}")
        )
        await store.write(lambda tx: tx.delete(REPOSITORY, repository("r0")))
    everything = stored(tmp_path, database_url)
    assert PLANTED.encode() not in everything
    assert key.encode() not in everything, "the key of digests would let guesses be tried"


async def test_what_was_stored_is_read_by_the_next_start(database_url: str, tmp_path: Path) -> None:
    file = key_file(tmp_path / "keys", "one")
    async with opened(database_url, tmp_path, file) as store:
        await fill(store, 3)
    async with opened(database_url, tmp_path, file) as store:
        await read(store, 3)
        name = await store.read(lambda s: s.digest_of(BLOB + b"\0", is_secret=True))
        assert await store.write(lambda tx: tx.touch_content(name)) == len(BLOB) + 1


# --- the wrong keys -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (("two",), "encrypted with the key one, which is not in"),
        (("one", 1), "is not the key one with which"),
        ((), "encrypted with the key one, which is not in what was given here"),
    ],
    ids=["another key", "another key of this name", "no keys"],
)
async def test_the_wrong_file_is_refused_and_nothing_is_written(
    database_url: str, tmp_path: Path, file: tuple[Any, ...], why: str
) -> None:
    async with opened(database_url, tmp_path, key_file(tmp_path / "keys", "one")) as store:
        await fill(store)
    before = stored(tmp_path, database_url)
    wrong = key_file(tmp_path / "keys", file[0], seed=sum(file[1:])) if file else None
    with pytest.raises(BadKeys, match=why):
        await Store.open(database_url, data_dir=tmp_path, key_file=wrong)
    assert stored(tmp_path, database_url) == before
    async with opened(database_url, tmp_path, key_file(tmp_path / "keys", "one")) as store:
        await read(store)


async def test_a_lost_file_is_not_made_again(database_url: str, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys", may_be_made=True)
    async with opened(database_url, tmp_path, file) as store:
        await fill(store)
    file.path.rename(tmp_path / "elsewhere")
    with pytest.raises(BadKeys, match="put it there"):
        await Store.open(database_url, data_dir=tmp_path, key_file=file)
    assert not file.path.exists()


async def test_a_value_can_be_read_only_where_it_was_written(
    database_url: str, tmp_path: Path
) -> None:
    """Who can write to the database cannot have a secret shown by moving it to an object of his."""
    async with opened(database_url, tmp_path, key_file(tmp_path / "keys", "one")) as store:
        await fill(store, 2)
        moved = "UPDATE object SET spec = (SELECT spec FROM object WHERE name = 'r0')"
        await store.database.transact(lambda c: c.exec_driver_sql(moved).close())
        with pytest.raises(Unopenable, match=r"Repository uid-r1 spec\.httpConfig"):
            await store.read(lambda s: s.get(REPOSITORY, "default", "r1"))
        swapped = "UPDATE content SET body = (SELECT body FROM content ORDER BY digest LIMIT 1)"
        await store.database.transact(lambda c: c.exec_driver_sql(swapped).close())

        def all_contents(snapshot: Snapshot) -> None:
            for n in range(2):
                snapshot.content(snapshot.digest_of(BLOB + bytes([n]), is_secret=True))

        with pytest.raises(Unopenable, match="content hmac-sha256:"):
            await store.read(all_contents)


# --- new keys -------------------------------------------------------------------------------


async def test_values_from_before_there_were_keys_are_encrypted(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url, tmp_path, None) as store:
        await fill(store, 120)
        version = store.hub.version
    assert PLANTED.encode() in stored(tmp_path, database_url), "or this test shows nothing"
    async with opened(database_url, tmp_path, key_file(tmp_path / "keys", "one")) as store:
        await read(store, 120)
        assert await store.read(resealing.left) == 240
        assert await rounds.reseal(store, pause_s=0)
        assert await store.read(resealing.left) == 0
        assert store.hub.version == version, "nobody sees a change"
        await read(store, 120)
    assert PLANTED.encode() not in stored(tmp_path, database_url)
    assert keys_needed(tmp_path, database_url) == {"one"}


@pytest.mark.parametrize("died_after", [1, 4])
async def test_a_new_first_key_replaces_the_old_whenever_it_was_interrupted(
    database_url: str, tmp_path: Path, died_after: int
) -> None:
    folder = tmp_path / "keys"
    async with opened(database_url, tmp_path, key_file(folder, "old")) as store:
        await fill(store, 120)
        await rounds.reseal(store, pause_s=0)
    both = key_file(folder, "new", "old")
    async with opened(database_url, tmp_path, both) as store:
        after = ""
        for _ in range(died_after):
            after = (await store.write(partial(resealing.step, after=after))).after
        await read(store, 120)
    with pytest.raises(BadKeys, match="the key old, which is not in"):
        await Store.open(database_url, data_dir=tmp_path, key_file=key_file(folder, "new"))
    async with opened(database_url, tmp_path, both) as store:
        assert await rounds.reseal(store, pause_s=0)
    assert keys_needed(tmp_path, database_url) == {"new"}
    async with opened(database_url, tmp_path, key_file(folder, "new")) as store:
        await read(store, 120)


async def test_what_another_process_writes_with_the_old_key_meanwhile_is_not_lost(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    url, folder = new_database("postgresql"), tmp_path / "keys"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        opened(url, tmp_path / "a", key_file(folder, "new", "old")) as ours,
        opened(url, tmp_path / "b", key_file(folder, "old", "new")) as theirs,
    ):
        await fill(theirs, 3)
        assert await rounds.reseal(ours, pause_s=0)
        assert keys_needed(tmp_path, url) == {"new"}
        await theirs.write(lambda tx: tx.insert(REPOSITORY, repository("late")))
        assert keys_needed(tmp_path, url) == {"new", "old"}, "named in the same transaction"
        await read(theirs, 3)
        assert await ours.read(keys.others) == ["old"]
        assert await rounds.reseal(ours, pause_s=0)
    async with opened(url, tmp_path / "a", key_file(folder, "new")) as store:
        assert (await store.read(lambda s: s.get(REPOSITORY, "default", "late"))) is not None


async def test_a_change_of_keys_is_told_when_it_begins_and_when_it_is_done(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"

    async def events(store: Store) -> list[Json]:
        """After a round, as the service has them."""
        operations = app.create_operations(store)
        await operations.prepare()
        keeping = asyncio.create_task(rounds.keep_sealed(operations))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await store.read(keys.others):
                    await asyncio.sleep(0.05)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
        found = await store.read(lambda s: s.list(STORED, "default"))
        return [each["spec"] for each in found if each["spec"]["reason"].startswith("Encryption")]

    async with opened(database_url, tmp_path, key_file(folder, "old")) as store:
        assert await events(store) == [], "a new database has nothing to encrypt again"
        await fill(store, 3)
    async with opened(database_url, tmp_path, key_file(folder, "new", "old")) as store:
        said = await events(store)
        assert sorted(each["reason"] for each in said) == [
            "EncryptionMigrationCompleted",
            "EncryptionMigrationStarted",
        ]
        assert {each["type"] for each in said} == {"Normal"}
        about = {(e["involvedObject"]["kind"], e["involvedObject"]["name"]) for e in said}
        assert about == {("System", "encryption")}
        assert all("the key new" in each["message"] for each in said)
        assert len(await events(store)) == 2, "once"


# --- the whole service ----------------------------------------------------------------------


def body(name: str, **more: Any) -> bytes:
    return json.dumps(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "Repository",
            "metadata": {"name": name},
            "spec": {
                "type": "http",
                "url": "https://example.com",
                "httpConfig": {"username": "me", "password": PLANTED, **more},
            },
        }
    ).encode()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"] if SOAK else ["sqlite"])
def test_a_secret_is_nowhere_but_where_it_is_used(
    database: str, new_database: Callable[[str], str], tmp_path: Path
) -> None:
    """Written, refused, patched, deleted, watched: no byte of it in the database, in answers, in
    the log; and a server that is killed while it encrypts again ends with the new key alone."""
    database_url = new_database(database)
    data, path = tmp_path / "data", "/apis/flightctl.io/v1beta1/namespaces/default/repositories"
    log = data.with_name("data.log")
    answers = ""

    def asked(method: str, place: str, code: int, raw: bytes | None = None, **headers: str) -> None:
        nonlocal answers
        access = kubeconfig.load(server.kubeconfig)
        sent = {"Content-Type": headers.get("kind", "application/json")}
        status, text = apiserver_process.ask(server.url, access.context, method, place, raw, sent)
        assert status == code, text
        answers += text

    with apiserver_process.running(data, database=database_url) as server:
        for n in range(8):
            asked("POST", path, 201, body(f"r{n}"))
        asked("POST", path, 422, body("wrong", unknown=PLANTED, password=5))
        asked("POST", path, 409, body("r1"))
        patch = json.dumps({"spec": {"httpConfig": {"password": PLANTED + "2"}}}).encode()
        asked("PATCH", f"{path}/r2", 200, patch, kind="application/merge-patch+json")
        asked("DELETE", f"{path}/r3", 200)
        asked("GET", f"{path}?watch=1&timeoutSeconds=1&resourceVersion=1", 200)
        asked("GET", path, 200)
        assert PLANTED.encode() not in stored(data, database_url)
    assert PLANTED not in answers
    assert PLANTED not in log.read_text()
    file = data / "encryption-keys"
    old = file.read_text()
    new = key_file(tmp_path, "new").path.read_text()
    file.write_text(new + old)
    if SOAK:
        # Else told by the steps above, each of which is a transaction.
        with apiserver_process.running(data, database=database_url) as server:
            server.kill()
    with apiserver_process.running(data, database=database_url) as server:
        asked("GET", f"{path}/r2", 200)
        deadline = time.monotonic() + 60
        while keys_needed(data, database_url) != {"new"}:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
    file.write_text(new)
    assert "encryption completed" in log.read_text()
    assert old.split()[1] not in log.read_text()
    assert PLANTED.encode() not in stored(data, database_url)


async def test_a_server_with_the_wrong_keys_does_not_start_and_says_why(tmp_path: Path) -> None:
    async with opened("", tmp_path, key_file(tmp_path / "keys", "one")) as store:
        await fill(store)
    shutil.copy(key_file(tmp_path / "keys", "two").path, tmp_path / "encryption-keys")
    with pytest.raises(BadKeys, match="encrypted with the key one, which is not in") as refused:
        await app.serve(settings_of(data=tmp_path, with_controllers=False))
    assert "\n" not in said(refused.value, tmp_path)
    assert isinstance(refused.value, REFUSALS), "told in one line, as what a person can mend"
