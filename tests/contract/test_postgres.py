"""What only PostgreSQL can do to a store: be away, restart, lose an answer, belong to others."""

from __future__ import annotations

import asyncio
import contextlib
import select
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from apiserver import app, refusing
from apiserver.agentapi.deliveries import Deliveries, Found
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.config import KEYS_FILE, ConfigError, Settings, settings_of
from apiserver.operations import Operations
from apiserver.store import (
    BadKeys,
    Store,
    StoreLocked,
    StoreTooNew,
    StoreUnavailable,
    StoreUnreachable,
    pglistener,
    presence,
)
from apiserver.store.postgres import READERS, PostgresDatabase
from bench.fleet import Service
from resources import registry
from resources.kind import Json
from tests.fakes import cutting
from tests.fakes import postgres as pgserver
from tests.fakes.postgres import Cluster
from tests.fakes.waiting import PATIENCE_S, until

FLEET = registry.by_kind("Fleet")
Open = Callable[..., Awaitable[Store]]


def fleet(name: str) -> Json:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": "2026-11-23T00:00:00Z",
    }
    return {"metadata": metadata, "spec": {"template": {"spec": {}}}}


async def insert(store: Store, name: str) -> int:
    stored = await store.write(lambda tx: tx.insert(FLEET, fleet(name)))
    return int(stored["metadata"]["resourceVersion"])


async def names(store: Store) -> list[str]:
    return await store.read(lambda s: [d["metadata"]["name"] for d in s.list(FLEET, None)])


@pytest.fixture
def url(postgres: Cluster, migrated: str) -> str:
    return postgres.copy_database(migrated)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens stores, which are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(url: str, **more: Any) -> Store:
            store = await Store.open(url, **more)
            stack.push_async_callback(store.close)
            return store

        yield open_


# --- starting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (lambda c, u: c.url("nowhere"), 'database "nowhere" does not exist; create it'),
        (lambda c, u: u.replace("tests%20only", "x"), "password authentication failed for user"),
        (
            lambda c, u: u.replace(":tests%20only", ""),
            "no password supplied; give it in $PGPASSWORD",
        ),
        (lambda c, u: u.replace(f":{c.port}", ":1"), "Connection refused; start the server"),
        (lambda c, u: "postgresql://a:b@c:d/e", "is not postgresql://USER:PASSWORD@HOST:PORT/"),
        (lambda c, u: c.create_database("ENCODING 'SQL_ASCII' LOCALE 'C'"), "is SQL_ASCII; create"),
    ],
    ids=["no-database", "wrong-password", "no-password", "no-server", "no-url", "no-utf8"],
)
async def test_what_a_person_can_mend_is_said_in_one_line(
    postgres: Cluster, migrated: str, spoilt: Callable[[Cluster, str], str], words: str
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await Store.open(spoilt(postgres, migrated))
    said = str(refused.value)
    assert words in said
    assert "\n" not in said
    assert "tests" not in said, "the password is nobody's to read"


async def test_a_user_who_may_not_make_tables_is_told_what_to_do(postgres: Cluster) -> None:
    url = postgres.create_database()
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO postgres")
    with pytest.raises(StoreUnavailable, match=r"permission denied.*make the user the owner"):
        await Store.open(url)


async def test_a_standby_is_refused_and_the_primary_beside_it_found(opened: Open) -> None:
    with pgserver.running() as primary:
        url = primary.create_database()
        with pgserver.standby_of(primary) as standby:
            with pytest.raises(StoreUnavailable) as refused:
                await opened(url.replace(f":{primary.port}/", f":{standby.port}/"))
            said = str(refused.value)
            assert "in hot standby" in said
            assert "\n" not in said
            user, _, place = url.partition("@")
            hosts = f"host=127.0.0.1,127.0.0.1&port={standby.port},{primary.port}"
            name = place.rpartition("/")[2]
            both = f"{user}@/{name}?{hosts}&target_session_attrs=read-write"
            store = await opened(both)
            assert await insert(store, "a") == 1
            await store.close()


async def test_a_database_that_is_read_only_by_default_is_refused(
    postgres: Cluster, url: str
) -> None:
    name = url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only by default_transaction_read_only"):
        await Store.open(url)


async def test_a_database_that_a_newer_version_wrote_is_refused(
    postgres: Cluster, url: str
) -> None:
    name = url.rpartition("/")[2]
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", name)
    with pytest.raises(StoreTooNew, match="9999"):
        await Store.open(url)


async def test_those_who_start_at_once_on_an_empty_database_all_start(
    postgres: Cluster, opened: Open
) -> None:
    """One migrates; the others wait for it."""
    url = postgres.create_database()
    stores = await asyncio.gather(*(opened(url) for _ in range(3)))
    assert len({await s.read(lambda snapshot: snapshot.store_uid) for s in stores}) == 1
    versions = await asyncio.gather(*(insert(s, f"f{n}") for n, s in enumerate(stores)))
    assert sorted(versions) == [1, 2, 3]


async def test_every_text_is_compared_by_its_bytes(postgres: Cluster, migrated: str) -> None:
    """Also in tables that a later migration makes: this fails, and it says so there."""
    found = postgres.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = 'text'"
        " AND table_schema = 'public' AND collation_name IS DISTINCT FROM 'C'",
        migrated.rpartition("/")[2],
    )
    assert not found, f'add COLLATE "C" on PostgreSQL, as migration 0003 does: {found}'


async def test_a_data_directory_belongs_to_one_process(url: str, tmp_path: Path) -> None:
    first = await Store.open(url, data_dir=tmp_path)
    with pytest.raises(StoreLocked, match="in use by process"):
        await Store.open(url, data_dir=tmp_path)
    await first.close()


async def test_an_authority_that_devices_do_not_know_is_refused(url: str, tmp_path: Path) -> None:
    def settings(name: str) -> Settings:
        return settings_of(
            data=tmp_path / name,
            listen="127.0.0.1:0",
            agent_listen="127.0.0.1:0",
            database=url,
            with_controllers=False,
        )

    first = await app.serve(settings("first"))
    try:
        with pytest.raises(BadKeys, match="put it there, from another server"):
            await app.serve(settings("stranger"))
        for name in ("stranger", "copy"):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(tmp_path / "first" / KEYS_FILE, tmp_path / name)
        with pytest.raises(ConfigError, match="put the pki directory of the server"):
            await app.serve(settings("stranger"))
        shutil.copytree(tmp_path / "first" / "pki", tmp_path / "copy" / "pki")
        second = await app.serve(settings("copy"))
        await second.stop()
    finally:
        await first.stop()


# --- its patience ---------------------------------------------------------------------------


async def test_no_session_waits_for_ever_whatever_the_url_says(url: str) -> None:
    options = "options=-c%20lock_timeout%3D0%20-c%20statement_timeout%3D0"
    database = await PostgresDatabase.open(f"{url}?{options}")
    for name, limit in (
        ("lock_timeout", "10s"),
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "20s"),
    ):
        show = f"SHOW {name}"
        for run in (database.read, database.transact):
            assert await run(lambda c, show=show: c.exec_driver_sql(show).scalar()) == limit
    await database.close()


async def test_who_waits_for_the_write_lock_too_long_is_refused_and_nothing_changed(
    postgres: Cluster, url: str, opened: Open
) -> None:
    """The ten seconds are waited for: it is the setting that is tried."""
    store = await opened(url)
    holder = await PostgresDatabase.open(url)
    holding = asyncio.create_task(holder.transact(lambda c: c.exec_driver_sql(SLEEP.format(50))))
    asleep = f"SELECT pid FROM pg_stat_activity WHERE query = '{SLEEP.format(50)}'"
    await until(lambda: asyncio.to_thread(postgres.execute, asleep))
    with pytest.raises(StoreUnavailable, match="has held the write lock for long; nothing was"):
        await insert(store, "a")
    assert await names(store) == [], "those who read wait for nobody"
    assert not holding.done()
    postgres.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(50)'"
        f" AND datname = '{url.rpartition('/')[2]}'"
    )
    with pytest.raises(StoreUnavailable):
        await holding
    assert await insert(store, "a") == 1
    await holder.close()


SLEEP = "SELECT pg_sleep({})"


def take_too_long(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL statement_timeout = '200ms'")
    connection.exec_driver_sql(SLEEP.format(600))


def hang(connection: Connection) -> None:
    """Between two statements, under the lock."""
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
    driver = connection.connection.driver_connection
    assert driver is not None
    # Until the server has hung up.
    assert select.select([driver.fileno()], [], [], PATIENCE_S)[0]
    connection.exec_driver_sql("SELECT 1")


@pytest.mark.parametrize(
    ("work", "words"),
    [(take_too_long, "took too long to answer"), (hang, "cannot be reached")],
    ids=["statement_timeout", "idle_in_transaction_session_timeout"],
)
async def test_who_takes_too_long_is_stopped_and_the_next_goes_on(
    url: str, work: Callable[[Connection], None], words: str
) -> None:
    database = await PostgresDatabase.open(url)
    with pytest.raises(StoreUnavailable, match=f"{words}; nothing was changed"):
        await database.transact(work)
    assert await database.transact(lambda c: c.exec_driver_sql("SELECT 7").scalar()) == 7
    await database.close()


# --- losing it ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["answer", "commit"])
async def test_a_commit_whose_answer_is_lost_is_done_once(
    postgres: Cluster, url: str, opened: Open, lost: cutting.What
) -> None:
    """Also when another process has committed since, before anybody could ask."""
    other = await opened(url)
    with cutting.leading_to(postgres.port) as way:
        store = await opened(way.url(url))
        await insert(store, "before")
        way.relay.is_closed, way.lose = True, lost
        writing = asyncio.gather(*(insert(store, f"f{n}") for n in range(5)))
        assert await asyncio.to_thread(way.lost.wait, PATIENCE_S)
        theirs = await insert(other, "theirs")
        assert not writing.done(), "nobody can know yet"
        way.relay.is_closed = False
        ours = await writing
        later = await insert(store, "later")
        assert (max(ours) < theirs) == (lost == "answer")
        assert sorted([1, *ours, theirs, later]) == list(range(1, 9)), "each exactly once"
        assert len(await names(other)) == 8
        await store.close()


async def test_a_connection_that_was_lost_while_nobody_looked_is_noticed_by_nobody(
    postgres: Cluster, url: str, opened: Open
) -> None:
    with cutting.leading_to(postgres.port) as way:
        store = await opened(way.url(url))
        await insert(store, "a")
        way.relay.cut()
        assert await names(store) == ["a"]
        await insert(store, "b")
        way.relay.cut()
        await store.write(lambda tx: tx.insert(FLEET, fleet("rehearsed")), dry_run=True)
        assert await names(store) == ["a", "b"]
        await store.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
async def test_over_a_restart_of_the_database_nothing_acknowledged_is_lost(
    postgres: Cluster, url: str, opened: Open, how: signal.Signals
) -> None:
    stores = [await opened(url), await opened(url)]
    stopping = asyncio.Event()
    kept: dict[str, int] = {}
    refused: list[BaseException] = []

    async def write(which: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            name = f"f{which}-{number}"
            try:
                kept[name] = await insert(stores[which % 2], name)
            except StoreUnavailable as error:
                refused.append(error)
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for which in range(6):
            group.create_task(write(which))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.stop, how)
        before = len(kept)
        await asyncio.sleep(1.0)
        assert len(kept) <= before + 12, "what was under way, and no more"
        postgres.start()  # by this thread, with which it ends
        while len(kept) < before + 50:
            await asyncio.sleep(0.05)
        stopping.set()
    found = await stores[1].read(
        lambda s: {
            d["metadata"]["name"]: int(d["metadata"]["resourceVersion"])
            for d in s.list(FLEET, None)
        }
    )
    assert kept.items() <= found.items()
    versions = await stores[0].read(lambda s: [c.version for c in s.changes(FLEET, None, 0, 10**6)])
    assert versions == list(range(1, len(versions) + 1))
    assert all(isinstance(error, StoreUnreachable) for error in refused)
    told = refusing.of_store(StoreUnreachable("away"))
    assert told is not None
    assert (told.code, told.retry_after_s > 0) == (503, True)


# --- others ---------------------------------------------------------------------------------


async def test_commits_of_others_are_heard_at_once_and_also_after_the_ear_was_cut_off(
    postgres: Cluster, url: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the look that is taken besides shows nothing.
    monkeypatch.setattr(pglistener, "FOLLOW_S", 600)
    one = await opened(url)
    other = await opened(url)
    for number in range(10):
        hearing = asyncio.create_task(other.hub.wait(number, PATIENCE_S))
        await asyncio.sleep(0.01)
        await insert(one, f"f{number}")
        assert await hearing == number + 1
    name = url.rpartition("/")[2]
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}'"
        " AND (query ILIKE 'LISTEN%' OR query ILIKE '%FROM store_meta')"
    )
    await insert(one, "later")
    assert await other.hub.wait(10, PATIENCE_S) == 11


async def test_a_version_that_another_process_has_told_of_is_reached(
    url: str, opened: Open
) -> None:
    """Without having heard of it: the store itself is asked."""
    one = await opened(url)
    other = await opened(url)
    assert other._follower is not None
    other._follower.cancel()
    version = await insert(one, "a")
    assert other.hub.version < version
    assert await other.reach(version, 0.0) == version
    assert await other.reach(version + 1, 0.0) == version, "nobody has made that one"


async def test_a_poll_at_one_server_is_woken_by_a_bind_at_another(url: str, opened: Open) -> None:
    one, other = await opened(url), await opened(url)
    operations = Operations(one)
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(3)
    await service.change("one")
    key = ("default", "d000001")
    deliveries = Deliveries(other, AgentApiSettings())
    tasks = [asyncio.create_task(deliveries.follow())]
    tasks.append(asyncio.create_task(deliveries.serve_polls()))
    waiter = deliveries.enter(key, "1")
    found = await deliveries.look(key, "1")
    assert not found.is_news("1")
    await service.change("two")
    async with asyncio.timeout(PATIENCE_S):
        news = await waiter.news
    assert isinstance(news, Found)
    assert news.delivery.rendered_version == 2
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_lease_has_one_holder_until_it_ends(url: str, opened: Open) -> None:
    now = datetime.now(UTC)
    one = await opened(url, clock=lambda: now)
    other = await opened(url, clock=lambda: now)
    assert await one.lease("sweep", 90)
    assert not await other.lease("sweep", 90)
    assert await other.lease("housekeeping", 90)
    now += timedelta(seconds=60)
    assert await one.lease("sweep", 90), "its holder renews it"
    now += timedelta(seconds=60)
    assert not await other.lease("sweep", 90)
    now += timedelta(seconds=31)
    assert await other.lease("sweep", 90)
    assert not await one.lease("sweep", 90)


async def test_a_late_sighting_does_not_undo_a_newer_one_of_another_process(
    url: str, opened: Open
) -> None:
    now = datetime.now(UTC)
    one = await opened(url, clock=lambda: now)
    other = await opened(url, clock=lambda: now)
    seen = now.timestamp()
    await one.write(lambda tx: presence.record(tx, {"uid": seen}))
    await other.write(lambda tx: presence.record(tx, {"uid": seen - 400}))
    assert await one.read(lambda s: presence.last_seen(s, "uid")) == seen
    # What a clock wrote that was an hour ahead does not stay.
    await one.write(lambda tx: presence.record(tx, {"uid": seen + 3600}))
    await other.write(lambda tx: presence.record(tx, {"uid": seen + 1}))
    assert await one.read(lambda s: presence.last_seen(s, "uid")) == seen + 1


async def test_a_process_has_few_connections_however_much_it_is_asked(
    postgres: Cluster, url: str, opened: Open
) -> None:
    store = await opened(url)
    work = [insert(store, f"f{n}") for n in range(50)]
    await asyncio.gather(*work, *(names(store) for _ in range(50)))
    name = url.rpartition("/")[2]
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    assert postgres.execute(asked)[0][0] <= READERS + 2


async def test_a_nul_is_kept_as_another_character_and_looked_for_as_that(
    url: str, opened: Open
) -> None:
    store = await opened(url)
    assert await store.read(lambda s: s.get(FLEET, "default", "a\0b")) is None
    await insert(store, "a\0b")
    assert await names(store) == ["a�b"]


async def test_an_answer_means_that_it_is_on_disk_whatever_the_server_does_by_itself(
    postgres: Cluster, url: str
) -> None:
    name = url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = await PostgresDatabase.open(url)
    shown = await database.read(lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar())
    await database.close()
    assert shown == "on"
