"""`homeport up` as a process of its own, and the real kubectl to talk to it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli import kubeconfig
from resources import registry
from tests.e2e import processes, rootfs
from tests.fakes import ports

Json = dict[str, Any]
KUBECTL_MINOR_MIN = 27
# It takes two seconds; on a machine that boots devices meanwhile, many more.
READY_S = 120.0
# Found beside the interpreter that runs this, as it is in every virtual environment.
HOMEPORT = Path(sys.executable).parent / "homeport"


class Service:
    """The embedded service on loopback ports of its own. It can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder
        self.log = folder.with_suffix(".log")
        self.port = ports.free_port()
        self.agent_port = ports.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.data / "admin.kubeconfig"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = READY_S) -> str:
        """Its `ready` line."""
        seen = len(self._ready_lines())
        argv: list[str | Path] = [
            HOMEPORT,
            "up",
            "--data",
            self.data,
            "--listen",
            f"127.0.0.1:{self.port}",
        ]
        argv += ["--agent-listen", f"127.0.0.1:{self.agent_port}"]
        process = self._process = processes.start(argv, self.log, mode="ab")

        def ready() -> str | None:
            if process.poll() is not None:
                raise RuntimeError(f"homeport up ended:\n{processes.tail(self.log)}")
            lines = self._ready_lines()
            return lines[-1] if len(lines) > seen else None

        return processes.until(
            ready,
            "the service says ready",
            timeout_s=timeout_s,
            every_s=0.05,
            state=lambda: processes.tail(self.log),
        )

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return processes.stop(process, patience_s=12)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def agent_config(self) -> str:
        """The configuration for early binding that its first start wrote."""
        return (self.data / "enrollment" / "config.yaml").read_text()

    def homeport(self, *argv: str, timeout_s: float = 30) -> str:
        return self._run([str(HOMEPORT), *argv], timeout_s)

    def kubectl(self, *argv: str, stdin: str = "", timeout_s: float = 60) -> str:
        return self._run([kubectl(), *argv], timeout_s, stdin)

    def get(self, kind: str, name: str = "") -> Json:
        """What `kubectl get` would, without a program started for it: for those who ask often.
        Raises RuntimeError while there is no answer."""
        access = kubeconfig.load(self.kubeconfig)
        found = next(each for each in registry.KINDS if kind in (each.plural, each.singular))
        path = f"/apis/{found.api_version}/namespaces/default/{found.plural}/{name}".rstrip("/")
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=access.context, timeout=30
        )
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                document: Json = json.load(answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise RuntimeError(f"GET {path}: {error}") from error
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {document}")
        return document

    def environment(self) -> dict[str, str]:
        # A cache of its own: discovery of another run must not be believed.
        cache = self.data.parent / "kubectl-cache"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(cache)}

    def _run(self, argv: list[str], timeout_s: float, stdin: str = "") -> str:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=processes.at_most(timeout_s),
            env=self.environment(),
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _ready_lines(self) -> list[str]:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.startswith("ready")]


@functools.cache
def kubectl() -> str:
    """A kubectl that is new enough: the PATH's, else the one that `make setup` fetched."""
    for found in (shutil.which("kubectl"), str(rootfs.cache() / "kubectl" / "kubectl")):
        if found and Path(found).exists() and _minor(found) >= KUBECTL_MINOR_MIN:
            return found
    raise FileNotFoundError(f"no kubectl 1.{KUBECTL_MINOR_MIN} or newer: run `make setup`")


def _minor(program: str) -> int:
    done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True)
    found = re.search(rb'"minor": *"(\d+)', done.stdout)
    return int(found[1]) if found else 0
