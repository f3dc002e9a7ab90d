"""Sets stay sets: what a fleet change costs in statements, in log rows and in Python calls."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apiserver import app, config
from apiserver.store import Transaction
from bench.fleet import ADMIN, DEVICE, FLEET, PLAIN, ROLLOUT, VERSION, Service, fleet
from controllers import fleets, rollouts
from controllers.client import Client
from controllers.freezing import Freezer
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.remotes import Remotes
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from resources import manifest
from resources.kind import Json
from resources.manifest import File
from tests.fakes.sql import Statements

FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"
NOW = "2026-11-23T00:00:00Z"
STATEMENTS_PER_1000 = 15
# To look at what there is to do.
BEFORE = 5
CALLS_RATIO = 1.1


@pytest.mark.timeout(300)
async def test_a_bind_of_2000_takes_15_statements_a_thousand(tmp_path: Path) -> None:
    statements = Statements()
    try:
        service = await Service.start(tmp_path)
        store = service.operations.store
        await service.fill(2_000)
        await service.change("one")
        before = store.hub.version
        request = await service.offer("two")
        statements.seen.clear()
        answer = await service.bind(request | {"limit": 2_000})
    finally:
        statements.close()
    for statement, number in Counter(statements.seen).most_common():
        print(f"{number:4} {statement}")
    print(f"statements for 2000 devices: {len(statements.seen)}")
    assert answer == {"bound": 2_000, "rendered": 2_000, "remaining": 0, "failed": 0}
    assert len(statements.seen) <= BEFORE + 2 * STATEMENTS_PER_1000
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
    await service.stop()


@pytest.mark.timeout(300)
async def test_telling_2000_that_their_turn_has_not_come_takes_15_statements_a_thousand(
    tmp_path: Path,
) -> None:
    statements = Statements()
    try:
        service = await Service.start(tmp_path)
        await service.fill(2_000)
        await service.change("one")
        rest = "UPDATE device SET reported_version = rendered_version, updated_status = 'UpToDate'"
        store = service.operations.store
        await store.write(lambda tx: tx.connection.exec_driver_sql(rest))
        request = await service.offer("two")
        statements.seen.clear()
        before = store.hub.version
        await service.bind(request | {"mark": True})
    finally:
        statements.close()
    print(f"statements for 2000 devices: {len(statements.seen)}")
    assert store.hub.version == before + 2_000
    # And a third time, to see that nobody is left.
    assert len(statements.seen) <= 3 * STATEMENTS_PER_1000
    await service.stop()


async def offer_files(service: Service, number: int) -> Json:
    """A version with so many files from Git, frozen, and its rollout."""

    def post(tx: Transaction) -> str:
        blobs = [f"content of {n}".encode() for n in range(number)]
        files = [
            File(f"/etc/app/{n}", tx.put_content(blob), len(blob)) for n, blob in enumerate(blobs)
        ]
        return tx.put_content(manifest.document(files))

    listed = await service.operations.store.write(post)
    target = f"web.v9-{number:08}"
    reference = {"repository": "demo", "targetRevision": "main", "path": "/"}
    status = {
        "config": [{"name": "base", "gitRef": reference}],
        "inputs": [{"name": "base", "manifest": listed, "revision": "c0ffee"}],
    }
    version = {"metadata": {"name": target}, "spec": {"fleet": "web"}, "status": status}
    await service.operations.create(ADMIN, VERSION, "default", version, PLAIN)
    spec = {"target": {"fleet": "web", "templateVersion": target}}
    rollout = {"metadata": {"name": f"{target}-1"}, "spec": spec}
    await service.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
    return {"templateVersion": target, "rollout": f"{target}-1"}


@pytest.mark.timeout(300)
async def test_the_number_of_files_does_not_change_the_number_of_statements(tmp_path: Path) -> None:
    statements, took = Statements(), {}
    try:
        service = await Service.start(tmp_path)
        await service.fill(1_000)
        # The first one opens connections too.
        for number in (1, 2, 50):
            request = await offer_files(service, number)
            statements.seen.clear()
            answer = await service.bind(request | {"limit": 1_000})
            took[number] = len(statements.seen)
            assert answer == {"bound": 1_000, "rendered": 1_000, "remaining": 0, "failed": 0}
    finally:
        statements.close()
    print(f"statements for 1000 devices, by number of files: {took}")
    assert took[50] == took[2] <= BEFORE + STATEMENTS_PER_1000 + 2
    await service.stop()


async def calls_of(number: int, path: Path) -> int:
    """Python function calls of one fleet change, in every thread: the fleet written over HTTP, its
    version and rollout made by the controllers, and the bind that they ask for."""
    counts = [0]

    def note(_frame: Any, what: str, _argument: Any) -> None:
        if what == "call":
            counts[0] += 1

    settings = config.settings_of(data=path, listen="127.0.0.1:0", agent_listen="127.0.0.1:0")
    # Filled by a server of its own: what is counted is many times as slow.
    server = await app.serve(settings)
    service = await Service.over(server.operations)
    await service.fill(number)
    await service.change("one")
    await server.stop()
    # The store's threads begin with their first work, and count from then on.
    threading.setprofile(note)
    server = await app.serve(settings)
    try:
        endpoint = Endpoint(socket=settings.controllers_socket)
        async with endpoint.session() as session:
            client = Client(session, endpoint.server)
            mirrors = Mirrors(path / "git", Git(path / "known_hosts"))
            freezer = Freezer(client, Remotes(client), mirrors, HostCluster(), poll_s=1)
            sys.setprofile(note)
            counts[0] = 0
            document = fleet("two") | {"apiVersion": FLEET.api_version, "kind": FLEET.kind}
            await session.put(f"{endpoint.server}{FLEETS}/web", json=document)
            await fleets.reconcile(client, "default", "web", freezer=freezer, now=lambda: NOW)
            await rollouts.reconcile(client, "default", "web.v3-1", now=lambda: NOW)
            sys.setprofile(None)
            progress = await client.progress("default", "web", "web.v3-1")
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
