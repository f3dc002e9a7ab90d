"""`helm-render`: what Helm pipes all manifests of an application through. Standard input to output.

The label is put on by `kubectl kustomize`, which knows where pod templates are in each kind, and
reads and writes YAML as Kubernetes does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agent import helm

TOOLS = ("kubectl", "oc")
PATIENCE_S = 60.0


def run(identifier: str) -> int:
    """The exit status."""
    tool = next((found for name in TOOLS if (found := shutil.which(name))), None)
    if tool is None:
        return _failed("there is no kubectl, and no oc")
    manifests = sys.stdin.buffer.read()
    if not manifests.strip():
        return 0
    with tempfile.TemporaryDirectory(prefix="kustomize-labels-") as folder:
        Path(folder, "all.yaml").write_bytes(manifests)
        Path(folder, "kustomization.yaml").write_bytes(helm.kustomization(identifier))
        try:
            done = subprocess.run(
                [tool, "kustomize", folder], capture_output=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return _failed(f"no end of {tool} kustomize after {PATIENCE_S:.0f} s")
    if done.returncode:
        return _failed(done.stderr.decode(errors="replace").strip())
    sys.stdout.buffer.write(done.stdout)
    return 0


def _failed(words: str) -> int:
    print(f"homeport-agent: helm-render: {words}", file=sys.stderr)
    return 1
