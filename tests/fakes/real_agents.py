"""Our own agent as processes on this host, each below a root of its own, against a real service."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0
# A further certificate, as what sends telemetry wants it.
_FURTHER = """
name: otel
provisioner:
  type: csr
  config: {signer: flightctl.io/device-svc-client, common-name: "svc-otel-{{.DEVICE_ID}}"}
storage:
  type: filesystem
  config: {cert-path: /etc/otelcol/certs/otel.crt, key-path: /etc/otelcol/certs/otel.key}
"""
_FAST = "\nstatus-update-interval: 2s\nenrollment-verify-interval: 2s\n"
_FAST += "spec-fetch-error-base-delay: 2s\nspec-fetch-error-max-delay: 4s\n"


@dataclass(slots=True)
class RealAgent:
    """One device. `config` is the agents' configuration that the service wrote."""

    root: Path
    config: Path
    process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Write the configuration as the service gives it out now."""
        file = self.root / "etc/flightctl/config.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.config.read_text() + _FAST)
        file.with_name("certs.yaml").write_text(_FURTHER)

    def start(self) -> None:
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--root", str(self.root)],
                cwd=REPOSITORY,
                stdout=out,
                stderr=out,
                env=os.environ | {"FLIGHTCTL_DISABLE_CONSOLE_BANNER": "1"},
            )

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_S)

    @property
    def _log(self) -> Path:
        return self.root.with_name(f"{self.root.name}.log")

    def words(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def certs(self) -> Path:
        return self.root / "var/lib/flightctl/certs"

    @property
    def name(self) -> str:
        """Empty until it has asked to be let in."""
        found = re.search(r"enrolment name=([0-9a-v]{52})", self.words())
        return found[1] if found else ""

    @property
    def certificate(self) -> x509.Certificate | None:
        return _read(self.certs / "agent.crt")

    @property
    def further_certificate(self) -> x509.Certificate | None:
        return _read(self.root / "etc/otelcol/certs/otel.crt")

    async def until(self, what: str) -> None:
        """Its log says so, from now on."""
        seen = self.words().count(what)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.words().count(what) <= seen:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{what!r} is not in: {self.words()[-3000:]}") from None


def _read(file: Path) -> x509.Certificate | None:
    return x509.load_pem_x509_certificate(file.read_bytes()) if file.exists() else None


@contextmanager
def running(directory: Path, config: Path, number: int) -> Iterator[list[RealAgent]]:
    """So many, started; all are ended at the end."""
    made = [RealAgent(directory / f"device-{n}", config) for n in range(number)]
    try:
        for each in made:
            each.configure()
            each.start()
        yield made
    finally:
        for each in made:
            each.stop()
