"""`python -m apiserver`: the API server as a process of its own.

Says on standard error what is wrong when it can't start, and one line beginning with `ready` on
standard output when it serves. SIGTERM and SIGINT drain. `python -m apiserver ca` is about the
certificate authority of a server (`ca`), `python -m apiserver restored` about a database that came
from a backup (`restored`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from apiserver import app, ca, config, credentials, logs, memory, restored
from apiserver.pki.authority import AuthorityDamaged
from apiserver.store import BadKeys, StoreLocked, StoreTooNew, StoreUnavailable

# What a person can mend; everything else is a defect, and shows where.
REFUSALS = (
    config.ConfigError,
    StoreLocked,
    StoreTooNew,
    StoreUnavailable,
    BadKeys,
    AuthorityDamaged,
)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apiserver", description="Homeport's API server.")
    add = parser.add_argument
    add("--data", type=Path, required=True, help="directory of the database, keys and kubeconfig")
    add("--listen", default=config.DEFAULT_LISTEN, help="HOST:PORT for users")
    add("--agent-listen", default=config.DEFAULT_AGENT_LISTEN, help="HOST:PORT for agents")
    add("--url", default="", help="https://HOST:PORT by which users reach it")
    add("--agent-url", default="", help="https://HOST:PORT by which agents reach it")
    add("--database", default="", help="postgresql://USER@HOST/NAME instead of SQLite in --data")
    add("--signers", type=Path, help="file of who signs certificates, if not we")
    add("--tpm-ca", type=Path, help="directory of certificates of the makers of TPMs")
    add("--auth-providers", type=Path, help="file of AuthProviders, whose users may come")
    add("--encryption-keys", type=Path, help="file of the keys that secrets are encrypted with")
    add("--metrics-listen", default="", help="HOST:PORT for Prometheus; none unless given")
    add("--audit-log", type=Path, help="file for the audit, as JSON lines")
    add("--audit-days", type=int, default=config.AUDIT_DAYS, help="how long the audit is kept")
    for name, rate in vars(config.DEFAULT_LIMITS).items():
        add(f"--{name.replace('_', '-')}", type=float, default=rate, help="of each; 0: no bound")
    return parser


async def run(settings: config.Settings) -> None:
    """Serve until a signal says otherwise."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = await app.serve(settings)
    memory.settle()
    kubeconfig = settings.data / credentials.KUBECONFIG
    print(f"ready {server.url} agents {server.agent_url} kubeconfig {kubeconfig}", flush=True)
    await stopping.wait()
    await server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == [ca.WORD]:
        return ca.main(words[1:])
    if words[:1] == [restored.WORD]:
        return restored.main(words[1:])
    given = options().parse_args(words)
    try:
        settings = config.settings_of(
            data=given.data,
            listen=given.listen,
            agent_listen=given.agent_listen,
            url=given.url,
            agent_url=given.agent_url,
            database=given.database,
            auth_providers=given.auth_providers,
            encryption_keys=given.encryption_keys,
            signers=given.signers,
            metrics_listen=given.metrics_listen,
            audit_log=given.audit_log,
            audit_days=given.audit_days,
            tpm_ca=given.tpm_ca,
            limits=config.Limits(
                **{name: getattr(given, name) for name in vars(config.DEFAULT_LIMITS)}
            ),
        )
        uvloop.run(run(settings))
    except (*REFUSALS, OSError) as error:
        print(f"error: {said(error, given.data)}", file=sys.stderr)
        return 1
    return 0


def said(error: Exception, data: Path) -> str:
    """One line on why it could not start: a full disk, a directory of somebody else, …"""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or data}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    logs.configure()
    sys.exit(main())
