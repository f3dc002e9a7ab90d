"""What our agent takes of a machine on which it has nothing to do.

Measured of one process, enrolled, as the kernel counts: resident memory, the part of it that is
shared with nobody, processor time, and that of the commands which it runs. Beside it what its start
costs. The same figures for a process of this machine (`python -m bench --only agent`) and, from the
installed package with three applications, for a device (`tests/e2e/test_agent_at_rest.py`).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import wire
from bench.figures import Figure

SCOPE = "agent, no applications"
# The certificate, the first specification, the first report.
SETTLE_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")
# What it prints: milliseconds, modules, packages that are neither Python's nor ours.
IMPORTS = """import sys, time
sys.path.insert(0, PATH)
begun = time.perf_counter()
import agent.starting, agent.process
took = (time.perf_counter() - begun) * 1000
known = {*sys.stdlib_module_names, "__main__", "agent", "resources", "sitecustomize"}
others = {name.partition(".")[0] for name in sys.modules} - known
print(took, len(sys.modules), len(others), *sorted(others))
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds so far, of a process and of the commands that it has run."""

    own_s: float
    commands_s: float


def spent(stat: str) -> Spent:
    """Of /proc/PID/stat."""
    words = stat.rpartition(")")[2].split()
    own, commands = (sum(int(word) for word in words[at : at + 2]) / TICKS for at in (11, 13))
    return Spent(own, commands)


def megabytes(rollup: str, name: str) -> float:
    """Of /proc/PID/smaps_rollup."""
    line = next(line for line in rollup.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def figures(
    read: Callable[[str], str], seconds: float, before: Spent, after: Spent, scope: str
) -> list[Figure]:
    """`read` gives a file of the process's folder in /proc, at the end of the `seconds`."""
    rollup = read("smaps_rollup")
    own = (after.own_s - before.own_s) / seconds * 100
    commands = (after.commands_s - before.commands_s) / seconds * 100
    core = "% of a core"
    return [
        Figure("agent: resident", megabytes(rollup, "Rss"), "MB", "≤ 30", "29.7", scope),
        Figure("agent: its share (PSS)", megabytes(rollup, "Pss"), "MB", "-", "-", scope),
        Figure("agent: CPU", own, core, "≤ 0.07", "0.07", scope),
        Figure("its commands: CPU", commands, core, "-", "-", scope),
        Figure("both: CPU", own + commands, core, "≤ 0.10", "-", scope),
    ]


def of_start(printed: str, scope: str) -> list[Figure]:
    """Of what `IMPORTS` prints."""
    took, modules, others, *_ = printed.split()
    return [
        Figure("agent: import", float(took), "ms", "-", "-", scope),
        Figure("agent: modules imported", float(modules), "", "-", "-", scope),
        Figure("of packages not Python's", float(others), "", "0", "-", scope),
    ]


def imports(python: str, path: str) -> list[str]:
    return [python, "-I", "-c", IMPORTS.replace("PATH", repr(path))]


async def measured(seconds: float) -> list[Figure]:
    with TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            site = await wire.open_site(Path(directory), stack)
            pid = await stack.enter_async_context(_enrolled(site))
            await asyncio.sleep(SETTLE_S)
            folder = Path(f"/proc/{pid}")
            before = spent((folder / "stat").read_text())
            await asyncio.sleep(seconds)
            after = spent((folder / "stat").read_text())
            found = figures(lambda name: (folder / name).read_text(), seconds, before, after, SCOPE)
    source = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        imports(sys.executable, source), capture_output=True, text=True, check=True, timeout=60
    )
    return [*found, *of_start(done.stdout, SCOPE)]


@asynccontextmanager
async def _enrolled(site: wire.Site) -> AsyncIterator[int]:
    """The process identifier of an agent that the service has let in."""
    root = site.directory / "device"
    (root / "etc/flightctl").mkdir(parents=True)
    given = (site.server.data / "enrollment" / "config.yaml").read_text()
    (root / "etc/flightctl/config.yaml").write_text(given)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "--root", str(root)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # As its unit has it.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    try:
        names: list[str] = []
        while not names:
            await asyncio.sleep(0.5)
            async with site.user.get(f"{site.server.url}{wire.BASE}/enrollmentrequests") as answer:
                names = [item["metadata"]["name"] for item in (await answer.json())["items"]]
        path = f"{site.server.url}{wire.BASE}/enrollmentrequests/{names[0]}/approval"
        async with site.user.put(path, json={"approved": True}) as answer:
            assert answer.status == 200, await answer.text()
        yield process.pid
    finally:
        process.terminate()
        await process.wait()
