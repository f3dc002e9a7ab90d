"""`make bench`: figures of the service's core, as a table and as JSON, each beside a comparison.

Three scopes, and the column `scope` says which. The core: operations and store in this process,
real SQLite with synchronous=FULL, no HTTP; set beside the reference's whole service it flatters us
by what HTTP costs. Over the wire: the API server as a process, devices that enrol and speak mutual
TLS with it; the load generator shares its cores, so CPU a request is what to trust and rates are a
lower bound. The stores, by name and number of devices: see `bench.stores`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import uvloop

from bench import fleet, renewals, stores, wire
from bench.figures import Figure, latency, show, yardstick
from bench.fleet import DEVICE
from resources.kind import Json
from resources.selectors import parse_fields, parse_labels

WIRE = "service over mTLS"
AT_REST_S = 60.0
RENEWING = 200


async def main(devices: int, connected: int, sizes: list[int], out: Path | None) -> int:
    print(
        f"bound: {devices} devices in the core, {connected} connected,"
        f" {', '.join(map(str, sizes)) or 'none'} in each store"
    )
    figures = [yardstick()]
    with tempfile.TemporaryDirectory() as directory:
        service = await fleet.Service.start(Path(directory))
        try:
            await service.fill(devices)
            figures += await binding(service, devices)
            figures += await listing(service)
            figures += await reporting(service, devices)
        finally:
            await service.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures.append(Figure(f"memory, peak, {devices} devices stored", peak, "MB"))
    if connected:
        figures += await over_the_wire(connected)
    if sizes:
        figures += await stores.both(sizes)
    show(figures)
    if out is not None:
        out.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0


async def over_the_wire(connected: int) -> list[Figure]:
    """The service as a process, and devices over mutual TLS."""
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            site = await wire.open_site(Path(directory), stack)
            enrolled = await wire.enrol(site, connected)
            await wire.connect(site)
            given = await wire.rendered(site)
            told = await wire.reports(site)
            resident, each = await wire.memory_of_polls(site)
            renewing = renewals.identities(site)[:RENEWING]
            renewed = await renewals.at_once(site, renewing)
            await renewals.close(renewing)
            agent_mb, agent_percent = await wire.agent_at_rest(site, AT_REST_S)
    return [
        Figure("enrolment, 20 at a time", enrolled.rate, "/s", "≥ 400/s", "126-212/s", WIRE),
        Figure("CPU for one", enrolled.cpu_ms, "ms", "≤ 2 ms", "~60 ms all in", WIRE),
        Figure("rendered GET, 50 at a time", given.rate, "/s", "≥ 4000/s", "2000/s", WIRE),
        Figure("CPU for one", given.cpu_ms, "ms", "≤ 0.25 ms", "0.5 ms", WIRE),
        Figure("p99", given.p99_ms, "ms", "-", "90 ms", WIRE),
        Figure("status PUT, changing, 50 at a time", told.rate, "/s", "≥ 2500/s", "~1100/s", WIRE),
        Figure("CPU for one", told.cpu_ms, "ms", "≤ 0.4 ms", "1.3 ms", WIRE),
        Figure("p99", told.p99_ms, "ms", "-", "91 ms", WIRE),
        Figure(f"memory of the API server, {connected} polls held", resident, "MB", "-", "-", WIRE),
        Figure(f"renewal, {len(renewing)} devices at once", renewed.rate, "/s", "-", "-", WIRE),
        Figure("CPU for one", renewed.cpu_ms, "ms", "-", "-", WIRE),
        Figure("p99, with the first request", renewed.p99_ms, "ms", "-", "-", WIRE),
        Figure("agent at rest: memory", agent_mb, "MB", "≤ 30 MB", "29.7 MB", WIRE),
        Figure("agent at rest: CPU", agent_percent, "% of a core", "≤ 0.07", "0.07", WIRE),
        Figure("memory for one more", each, "MB", "≤ 0.08 MB", "0.14 MB", WIRE),
    ]


async def binding(service: fleet.Service, devices: int) -> list[Figure]:
    """A fleet change until every device is bound; the second one, with warm statements."""
    await service.change("first")
    wall, cpu = time.perf_counter(), time.process_time()
    answer = await service.change("second")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert answer["bound"] == devices, answer
    return [
        Figure("fleet change: devices bound", devices / wall, "devices/s", "10 000/s", "150/s"),
        Figure("CPU for it", cpu / devices * 1000, "ms/device", "≤ 1 ms", "21-23 ms"),
    ]


async def listing(service: fleet.Service) -> list[Figure]:
    kinds: list[tuple[str, Json]] = [
        ("by label, all match", {"labels": parse_labels("site=a")}),
        ("by label, one matches", {"labels": parse_labels("serial=7")}),
        ("by field", {"fields": parse_fields("status.summary.status=Unknown", DEVICE.selectable)}),
    ]
    figures = []
    for name, selectors in kinds:
        p50, p99 = await latency(partial(service.page, **selectors), 200)
        what = f"list of 100 {name}"
        figures.append(Figure(f"{what}, p50", p50, "ms", "5 ms", "15-25 ms at 2000"))
        figures.append(Figure(f"{what}, p99", p99, "ms", "25 ms", "64-90 ms at 2000"))
    p50, _ = await latency(service.summary, 100)
    figures.append(
        Figure("summary of all devices, p50", p50, "ms", "< 5 ms, flat", "33 ms at 2000")
    )
    return figures


async def reporting(service: fleet.Service, devices: int) -> list[Figure]:
    """Status reports that change something, fifty at a time."""
    number = 5_000
    gate = asyncio.Semaphore(50)

    async def one(n: int) -> None:
        async with gate:
            await service.report(f"d{n % devices:06}", n)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(n) for n in range(number)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [
        Figure(
            "status reports, changing, 50 at a time", number / wall, "/s", "≥ 2500/s", "~1100/s"
        ),
        Figure("CPU for one", cpu / number * 1000, "ms", "≤ 0.4 ms", "1.3 ms"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--connected", type=int, default=1_000, help="0 leaves that part out")
    parser.add_argument(
        "--stores", type=int, nargs="*", default=stores.DEFAULT, help="devices in each store"
    )
    parser.add_argument(
        "--full", action="store_const", dest="stores", const=stores.FULL, help="100 000 of them too"
    )
    parser.add_argument("--json", type=Path, default=None, help="write the figures there too")
    arguments = parser.parse_args()
    sys.exit(
        uvloop.run(main(arguments.devices, arguments.connected, arguments.stores, arguments.json))
    )
