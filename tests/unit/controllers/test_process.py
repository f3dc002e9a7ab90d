"""`python -m controllers` as a process: it works, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tests.fakes.kube_api import KubeApi


async def test_the_process_reconciles_until_it_is_told_to_end(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    api.put("fleets", "web", {"spec": {"template": {"spec": {}}}})
    async with api.served(socket), asyncio.timeout(40):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controllers", "--socket", str(socket)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            while not api.names("rollouts"):
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
