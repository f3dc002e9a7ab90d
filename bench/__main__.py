"""`make bench`: figures of the service, as a table and as JSON, each beside a comparison.

In parts, each of which can be run alone (`--only`), and one that fails says so and the others go
on; the column `scope` of the table says where a figure is from. `core`: operations and store in
this process, real SQLite with synchronous=FULL, no HTTP; set beside the reference's whole service
it flatters us by what HTTP costs. `wire`: the API server as a process, devices that enrol and speak
mutual TLS with it; the load generator shares its cores, so CPU a request is what to trust and rates
are a lower bound. `stores`: lists, writes and watches on both databases (`bench.stores`). `scale`:
thousands of connected devices, and `stored`: ten times as many that are not (`bench.scale`).
`agent`: our agent with nothing to do (`bench.atrest`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import uvloop

from bench import atrest, fleet, renewals, scale, stores, wire
from bench.figures import Figure, latency, show, yardstick
from bench.fleet import DEVICE
from resources.kind import Json
from resources.selectors import parse_fields, parse_labels

WIRE = "service over mTLS"
AT_REST_S = 120.0
RENEWING = 200
PARTS = ("core", "wire", "agent", "stores", "scale", "stored")


async def main(given: argparse.Namespace) -> int:
    parts = _parts(given)
    figures, failed = [yardstick()], []
    for name in given.only or parts:
        began = time.perf_counter()
        try:
            figures += await parts[name]()
        except Exception:  # the other parts have nothing to do with it
            traceback.print_exc()
            failed.append(name)
        print(f"# part {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    show(figures)
    for name in failed:
        print(f"FAILED: part {name}; what it found before is in the lines above that begin with #")
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 1 if failed else 0


def _parts(given: argparse.Namespace) -> dict[str, Callable[[], Awaitable[list[Figure]]]]:
    return {
        "core": partial(core, given.devices),
        "wire": partial(over_the_wire, given.connected),
        "agent": partial(atrest.measured, AT_REST_S),
        "stores": partial(stores.both, given.stores),
        "scale": partial(scale.on_both, scale.connected, given.devices, given.databases),
        "stored": partial(scale.on_both, scale.stored, given.stored, given.databases),
    }


async def core(devices: int) -> list[Figure]:
    """Operations and store, without HTTP."""
    figures: list[Figure] = []
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
    return figures


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


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", nargs="*", choices=PARTS, help="parts")
    add("--devices", type=int, default=scale.DEVICES, help="of the core, and connected in scale")
    add("--connected", type=int, default=1_000, help="in wire")
    add("--stored", type=int, default=scale.STORED, help="in stored")
    add("--stores", type=int, nargs="*", default=stores.DEFAULT, help="devices in each store")
    add("--databases", nargs="*", choices=scale.DATABASES, default=scale.DATABASES, help="of scale")
    add(
        "--full", action="store_const", dest="stores", const=stores.FULL, help="100 000 of them too"
    )
    add("--json", type=Path, default=None, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(_given())))
