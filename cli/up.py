"""The embedded service: API server and controllers in one process, the one place that knows both.

The API server owns the main thread's loop (uvloop); the controllers have threads of their own and
come in through a UNIX socket like any other client. They start after the server serves and stop
before it drains, so their last writes are answered.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from apiserver import app, config, credentials, logs, memory
from apiserver.__main__ import REFUSALS, said
from controllers.runtime import Controllers
from controllers.session import Endpoint
from controllers.settings import Settings

# Both together stay below the ten seconds after which a supervisor would kill us.
CONTROLLERS_STOP_S = 3.0
DRAIN_S = 5.0


def sources(
    data: Path, poll_s: float, host_kubeconfig: Path | None, access_s: float, known_hosts: Path
) -> Settings:
    """Where the controllers keep what they fetch, how often they look, whose Secrets they read,
    whom they trust."""
    return Settings(data / "controllers", poll_s, host_kubeconfig, access_s, known_hosts)


def run(
    *,
    data: Path,
    listen: str,
    agent_listen: str,
    url: str,
    agent_url: str,
    database: str,
    auth_providers: Path | None,
    encryption_keys: Path | None,
    signers: Path | None,
    audit_log: Path | None,
    audit_days: int,
    tpm_ca: Path | None,
    metrics_listen: str,
    limits: dict[str, float],
    sources: Settings,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 1 with one line on standard error for
    what a person can mend (a port in use, a locked or newer data directory)."""
    logs.configure()
    try:
        settings = config.settings_of(
            data=data,
            listen=listen,
            agent_listen=agent_listen,
            url=url,
            agent_url=agent_url,
            database=database,
            auth_providers=auth_providers,
            encryption_keys=encryption_keys,
            signers=signers,
            audit_log=audit_log,
            audit_days=audit_days,
            tpm_ca=tpm_ca,
            metrics_listen=metrics_listen,
            limits=config.Limits(**limits),
        )
        uvloop.run(_serve(settings, sources))
    except (*REFUSALS, OSError) as error:  # a TimeoutError of the controllers is one too
        print(f"error: {said(error, data)}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: config.Settings, sources: Settings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = await app.serve(settings)
    controllers = Controllers(Endpoint(socket=settings.controllers_socket), sources)
    try:
        await asyncio.to_thread(controllers.start)
        memory.settle()
        kubeconfig = settings.data / credentials.KUBECONFIG
        print(
            f"ready {server.url} for users, {server.agent_url} for agents; "
            f"export KUBECONFIG={kubeconfig}",
            flush=True,
        )
        await stopping.wait()
    finally:
        await asyncio.to_thread(controllers.stop, CONTROLLERS_STOP_S)
        await server.stop(DRAIN_S)
