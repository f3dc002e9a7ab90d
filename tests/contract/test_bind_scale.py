"""Sets stay sets: what a fleet change costs in statements, in log rows and in Python calls."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from apiserver import app, bindings, config
from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store, Transaction
from controllers import fleets, rollouts
from controllers.client import Client
from controllers.session import Endpoint
from resources import registry
from resources.kind import Json

ADMIN = Caller(name="admin", role="admin")
FLEET = registry.by_kind("Fleet")
DEVICE = registry.by_kind("Device")
VERSION = registry.by_kind("TemplateVersion")
ROLLOUT = registry.by_kind("Rollout")
FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"
NOW = "2026-11-23T00:00:00Z"
STATEMENTS_PER_1000 = 15
CALLS_RATIO = 1.2


def template(content: str) -> Json:
    return {"config": [{"name": "motd", "inline": [{"path": "/etc/motd", "content": content}]}]}


def fleet(content: str) -> Json:
    selector = {"matchLabels": {"site": "a"}}
    return {
        "metadata": {"name": "web"},
        "spec": {"selector": selector, "template": {"spec": template(content)}},
    }


async def fill(operations: Operations, number: int) -> None:
    """Devices of one fleet, a thousand a transaction."""

    def some(start: int) -> Any:
        def insert(tx: Transaction) -> None:
            for n in range(start, min(start + 1_000, number)):
                document = {
                    "metadata": {
                        "name": f"d{n:06}",
                        "namespace": "default",
                        "uid": f"uid-{n:06}",
                        "creationTimestamp": tx.timestamp,
                        "labels": {"site": "a"},
                    },
                    "spec": {},
                }
                bindings.insert_device(tx, document)

        return insert

    for start in range(0, number, 1_000):
        await operations.store.write(some(start))


async def change(operations: Operations, number: int, content: str) -> Json:
    """What a fleet change is to the API server: the fleet, its version, its rollout, the bind."""
    await operations.update(
        ADMIN, FLEET, "default", "web", fleet(content), WriteOptions(), create_missing=True
    )
    target = f"web.v{number}"
    version = {
        "metadata": {"name": target},
        "spec": {"fleet": "web"},
        "status": template(content) | {"conditions": []},
    }
    await operations.create(ADMIN, VERSION, "default", version, WriteOptions())
    rollout = {
        "metadata": {"name": f"{target}-1"},
        "spec": {"target": {"fleet": "web", "templateVersion": target}},
    }
    await operations.create(ADMIN, ROLLOUT, "default", rollout, WriteOptions())
    request = {"templateVersion": target, "rollout": f"{target}-1", "limit": 100_000}
    return await operations.bind(ADMIN, "default", "web", request)


class Statements:
    """Counts what goes to the database, transactions too."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        event.listen(Engine, "before_cursor_execute", self._note)

    def _note(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.seen.append(statement.strip()[:60])

    def close(self) -> None:
        event.remove(Engine, "before_cursor_execute", self._note)


@pytest.mark.timeout(300)
async def test_a_bind_of_2000_takes_15_statements_a_thousand(tmp_path: Path) -> None:
    store = await Store.open(data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    await operations.create(ADMIN, FLEET, "default", fleet("one"), WriteOptions())
    await fill(operations, 2_000)
    await change(operations, 1, "one")
    before = store.hub.version
    statements = Statements()
    try:
        await operations.update(ADMIN, FLEET, "default", "web", fleet("two"), WriteOptions())
        version = {
            "metadata": {"name": "web.v2"},
            "spec": {"fleet": "web"},
            "status": template("two") | {"conditions": []},
        }
        await operations.create(ADMIN, VERSION, "default", version, WriteOptions())
        rollout = {
            "metadata": {"name": "web.v2-1"},
            "spec": {"target": {"fleet": "web", "templateVersion": "web.v2"}},
        }
        await operations.create(ADMIN, ROLLOUT, "default", rollout, WriteOptions())
        statements.seen.clear()
        request = {"templateVersion": "web.v2", "rollout": "web.v2-1", "limit": 2_000}
        answer = await operations.bind(ADMIN, "default", "web", request)
    finally:
        statements.close()
    for statement, number in Counter(statements.seen).most_common():
        print(f"{number:4} {statement}")
    print(f"statements for 2000 devices: {len(statements.seen)}")
    assert answer == {"bound": 2_000, "rendered": 2_000, "remaining": 0}
    assert len(statements.seen) <= 2 * STATEMENTS_PER_1000
    rows = await store.read(lambda s: s.changes(DEVICE, None, before, 10_000))
    assert len(rows) == 2_000
    everything = await store.read(
        lambda s: [
            row[0]
            for row in s.connection.exec_driver_sql(
                "SELECT resource_version FROM change ORDER BY resource_version"
            )
        ]
    )
    assert everything == list(range(1, store.hub.version + 1)), "the log is gapless"
    await store.close()


async def calls_of(number: int, path: Path) -> int:
    """Python function calls of one fleet change, in every thread: the fleet written over HTTP, its
    version and rollout made by the controllers, and the bind that they ask for."""
    counts = [0]

    def note(_frame: Any, what: str, _argument: Any) -> None:
        if what == "call":
            counts[0] += 1

    settings = config.settings_of(data=path, listen="127.0.0.1:0", agent_listen="127.0.0.1:0")
    # The store's threads begin with their first work, and count from then on.
    threading.setprofile(note)
    server = await app.serve(settings)
    try:
        operations = server.operations
        await operations.create(ADMIN, FLEET, "default", fleet("one"), WriteOptions())
        await fill(operations, number)
        await change(operations, 1, "one")
        endpoint = Endpoint(socket=settings.controllers_socket)
        async with endpoint.session() as session:
            client = Client(session, endpoint.server)
            sys.setprofile(note)
            counts[0] = 0
            document = fleet("two") | {"apiVersion": FLEET.api_version, "kind": "Fleet"}
            await session.put(f"{endpoint.server}{FLEETS}/web", json=document)
            await fleets.reconcile(client, "default", "web", now=lambda: NOW)
            await rollouts.reconcile(client, "default", "web.v2-1", now=lambda: NOW)
            sys.setprofile(None)
            progress = await client.progress("default", "web", "web.v2-1")
        assert progress["rendered"] == number
        return counts[0]
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        await server.stop()


@pytest.mark.timeout(300)
async def test_python_calls_hardly_grow_with_the_number_of_devices(tmp_path: Path) -> None:
    small = await calls_of(2_000, tmp_path / "small")
    large = await calls_of(4_000, tmp_path / "large")
    print(f"Python calls: {small} for 2000 devices, {large} for 4000: {large / small:.2f}")
    assert large <= CALLS_RATIO * small
