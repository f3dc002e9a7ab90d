"""Flux's apply library and Argo CD's engine, each in a small program of ours.

Not fakes: what people's clusters run, without the clusters. They come from the cache that
`tests/setup/gitops.sh` fills, which knows them by what they are built from.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import rootfs

SOURCES = Path(__file__).parents[1] / "conformance"
MISSING = "no {} in the cache; tests/setup/gitops.sh builds it"
TIMEOUT_S = 60


def binary(name: str) -> Path:
    """Where the program is, if it is built."""
    parts = [(SOURCES / name / part).read_bytes() for part in ("go.mod", "go.sum", "main.go")]
    return rootfs.cache() / "gitops" / f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two, with one kubeconfig."""

    name: str
    kubeconfig: Path

    def __call__(self, *arguments: str | Path, manifests: str) -> dict[str, Any]:
        """What it says. It must succeed."""
        done = self.run(*arguments, manifests=manifests)
        assert done.returncode == 0, f"{self.name} {arguments}: {done.stderr}{done.stdout}"
        said: dict[str, Any] = json.loads(done.stdout or "{}")
        return said

    def run(
        self, *arguments: str | Path, manifests: str, timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary(self.name), *arguments],
            input=manifests,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
        )
