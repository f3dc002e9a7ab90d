"""Reports that come together are written together: a few statements for hundreds, and to each what
it would do alone. On both stores."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from apiserver.operations import Operations
from apiserver.store import Store, Transaction, reports
from apiserver.store.reports import Report
from apiserver.store.tables import CHANGE
from apiserver.store.tables import DEVICE as ROWS
from bench.fleet import Service
from tests.fakes.agent_client import device_status

Json = dict[str, Any]
DEVICES, REPORTS = 60, 200
STATEMENTS = 8
FEW, MANY = 30, 300


def some(dice: random.Random) -> list[Report]:
    """Of few devices, so many of them twice, and some of none that is there."""
    reasons = ["Rebooting", "ApplyingUpdate", "Error", "Updated"]
    found = []
    for _ in range(REPORTS):
        reason, version = dice.choice(reasons), dice.choice("0123")
        updating = {
            "type": "Updating",
            "status": "True" if reason in reasons[:2] else "False",
            "reason": reason,
            "message": f"at renderedVersion: {version}",
        }
        status = device_status(
            version,
            conditions=[updating],
            resources={"cpu": dice.choice(["Healthy", "Critical"]), "memory": "Healthy"},
            applicationsSummary={"status": dice.choice(["Healthy", "Error", "Unknown"])},
        )
        found.append(Report("default", f"d{dice.randrange(DEVICES + 3):06}", status))
    return found


def outcome(tx: Transaction, answers: list[Json | None]) -> tuple[Any, ...]:
    """All that a set of reports leaves behind, but for the order of versions within it."""
    for answer in answers:
        if answer is not None:
            answer["metadata"].pop("resourceVersion")
    rows = [dict(row) for row in tx.connection.execute(select(ROWS).order_by("uid")).mappings()]
    versions = [row.pop("resource_version") for row in rows]
    assert len(set(versions)) == len(versions)
    return answers, rows, tx.version


@pytest.mark.parametrize("seed", range(3))
async def test_a_set_does_to_each_what_it_would_do_alone(
    tmp_path: Path, database_url: str, seed: int
) -> None:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(DEVICES)
    await service.change("one")
    told = some(random.Random(seed))

    def alone(tx: Transaction) -> tuple[Any, ...]:
        return outcome(tx, [reports.put(tx, report) for report in told])

    def together(tx: Transaction) -> tuple[Any, ...]:
        return outcome(tx, reports.put_all(tx, told))

    expected = await store.write(alone, dry_run=True)
    assert await store.write(together, dry_run=True) == expected
    assert {answer is None for answer in expected[0]} == {True, False}
    # What it comes to is counted, and logged, once for each that moved.
    before = store.hub.version
    await store.write(together)
    logged = await store.read(
        lambda s: s.connection.execute(
            select(CHANGE.c.resource_version)
            .where(CHANGE.c.resource_version > before)
            .order_by(CHANGE.c.resource_version)
        ).all()
    )
    assert [version for (version,) in logged] == list(range(before + 1, store.hub.version + 1))
    counted = await service.summary()
    rows = await store.read(
        lambda s: s.connection.execute(select(ROWS.c.summary_status, ROWS.c.updated_status)).all()
    )
    assert counted["summary"] == Counter(row.summary_status for row in rows)
    assert counted["updated"] == Counter(row.updated_status for row in rows)
    await store.close()


async def test_a_set_of_any_size_takes_a_few_statements(tmp_path: Path, database_url: str) -> None:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(DEVICES)
    status = device_status("1", resources={"cpu": "Critical"})
    told = [Report("default", f"d{number:06}", status) for number in range(DEVICES)]
    statements: list[str] = []

    def counted(tx: Transaction) -> None:
        raw = tx.connection.connection
        plain = raw.cursor

        def cursor(*arguments: Any) -> Any:
            statements.append("")
            return plain(*arguments)

        raw.cursor = cursor  # type: ignore[method-assign]
        event.listen(tx.connection, "before_cursor_execute", lambda *_: statements.append(""))
        reports.put_all(tx, told)

    await store.write(counted, dry_run=True)
    print(f"{len(statements)} statements for {DEVICES} reports")
    assert 0 < len(statements) <= STATEMENTS
    await store.close()


async def test_what_a_report_takes_does_not_grow_with_their_number(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine: a set that looks for each device among all the others
    takes as many more for each report as the set is larger."""
    store = await Store.open(data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(MANY)
    steps = {number: await store.write(partial(stepped, number)) for number in (FEW, MANY)}
    each = {number: taken / number for number, taken in steps.items()}
    print(f"tens of steps for so many reports: {steps}")
    assert each[MANY] < 1.5 * each[FEW]
    await store.close()


def stepped(number: int, tx: Transaction) -> int:
    """How many tens of steps so many reports take."""
    taken = itertools.count()
    raw: Any = tx.connection.connection.driver_connection
    status = device_status(str(number), resources={"cpu": "Critical"})
    told = [Report("default", f"d{at:06}", status) for at in range(number)]
    raw.set_progress_handler(lambda: next(taken) < 0, 10)
    reports.put_all(tx, told)
    raw.set_progress_handler(None, 10)
    return next(taken)
