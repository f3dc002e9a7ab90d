"""kill -9 of the service at many moments: nothing that was acknowledged is lost, the log is
gapless, and a watcher that resumes ends with exactly what a list says. A PostgreSQL lives on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from apiserver.operations import Operations
from apiserver.store import Store
from resources import registry
from tests.fakes import sql

POINTS = ("before-commit", "after-commit", "replying", "idle")
SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
# A fifth of the fifty that were first shown: `make test` has to end in time. The soak has them all.
KILLS = 200 if SOAK else 10
# Each life costs three times as much there: once at each point, and in the soak fifty times.
KILLS_ON_POSTGRESQL = 50 if SOAK else 4


class Watcher:
    """What a client has built up over all lives of the service."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, int]] = {"Fleet": {}, "Device": {}}
        self.resume = {"Fleet": 0, "Device": 0}

    def see(self, kind: str, type_: str, version: int, uid: str) -> None:
        if self.resume[kind] and type_ != "ADDED":
            assert version > 0
        if type_ == "DELETED":
            self.known[kind].pop(uid, None)
        else:
            self.known[kind][uid] = version
        self.resume[kind] = max(self.resume[kind], version)


def life(directory: Path, url: str, seed: int, point: str, watcher: Watcher) -> dict[int, str]:
    """One life of the service; returns what it acknowledged: version → uid."""
    resume = f"{watcher.resume['Fleet']},{watcher.resume['Device']}"
    arguments = [str(directory), str(seed), point, resume, *([url] if url else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.dying_store", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -9, f"it died otherwise: {done.returncode}\n{done.stderr[-3000:]}"
    acknowledged: dict[int, str] = {}
    whole, _, _torn = done.stdout.rpartition("\n")
    for line in whole.splitlines():
        words = line.split()
        if words[0] == "A":
            acknowledged[int(words[1])] = words[2]
        else:
            watcher.see(words[1], words[2], int(words[3]), words[4])
    return acknowledged


@pytest.mark.timeout(1_500)
async def test_nothing_acknowledged_is_lost_over_many_kills(
    tmp_path: Path, database_url: str
) -> None:
    place = sql.place(tmp_path, database_url)
    watcher = Watcher()
    everything: dict[int, str] = {}
    histogram: Counter[str] = Counter()
    least = 10**9
    kills = KILLS_ON_POSTGRESQL if database_url else KILLS
    for number in range(kills):
        point = POINTS[number % len(POINTS)]
        acknowledged = life(tmp_path, database_url, number, point, watcher)
        histogram[point] += 1
        least = min(least, len(acknowledged))
        everything |= acknowledged
        top, rows = sql.rows(place, "SELECT max(resource_version), count(*) FROM change")[0]
        stored = sql.rows(place, "SELECT version FROM store_meta")[0][0]
        found = dict(sql.rows(place, "SELECT resource_version, uid FROM change"))
        assert top == stored == rows, "the log is gapless up to the store's version"
        lost = {v: uid for v, uid in acknowledged.items() if found.get(v) != uid}
        assert not lost, f"acknowledged and not there after a kill {point}: {lost}"
    print(f"kills: {kills}, by position: {dict(histogram)}")
    print(f"acknowledged writes: {len(everything)}, at least {least} between two kills")
    assert least >= 500
    await _compare(tmp_path, database_url, watcher)


async def _compare(directory: Path, url: str, watcher: Watcher) -> None:
    """The last stretch of the log, and then the client knows what a list says."""
    from apiserver.auth.identity import Caller
    from apiserver.operations import WatchOptions

    store = await Store.open(url, data_dir=directory)
    operations = Operations(store)
    caller = Caller(name="admin", role="admin")
    for name in ("Fleet", "Device"):
        kind = registry.by_kind(name)
        options = WatchOptions(resource_version=watcher.resume[name], timeout_s=0.0)
        async for batch in operations.watch(caller, kind, "default", options):
            for event in batch.events:
                metadata = event.document["metadata"]
                watcher.see(name, event.type, int(metadata["resourceVersion"]), metadata["uid"])
        listed = await store.read(lambda s, kind=kind: s.list(kind, "default"))
        expected = {d["metadata"]["uid"]: int(d["metadata"]["resourceVersion"]) for d in listed}
        assert watcher.known[name] == expected
        print(f"{name}: the resumed watcher knows {len(expected)} objects, as the list does")
    await store.close()
