"""Put an image onto an empty disk: what `bootc install to-filesystem` leaves behind. [simulated]

Run once for a device, from outside, by whoever makes its disk: `python3 -m
tests.fakes.bootc.installing SYSROOT TREE IMAGE [VERSION]`, where IMAGE has a digest.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from tests.fakes.bootc import storage
from tests.fakes.bootc.host import Image

STATEROOT = "default"


def prepare(sysroot: Path) -> None:
    """An empty system root. A power cut is a kill in these tests, so nothing waits for the disk."""
    repo = sysroot / "ostree/repo"
    _run("ostree", "admin", "init-fs", "--epoch=1", str(sysroot))
    _run("ostree", "admin", "os-init", f"--sysroot={sysroot}", STATEROOT)
    for setting in (
        ("sysroot.readonly", "false"),
        ("sysroot.bootloader", "none"),
        ("core.fsync", "false"),
    ):
        _run("ostree", "config", f"--repo={repo}", "set", *setting)


def install(sysroot: Path, tree: Path, image: Image) -> None:
    """A first deployment of it, which boots by default."""
    checksum = storage.commit_tree(tree, image, sysroot / "ostree/repo")
    with tempfile.NamedTemporaryFile("w", suffix=".origin") as file:
        source = f"ostree-unverified-image:{image.transport}:{image.reference}"
        file.write(f"[origin]\ncontainer-image-reference={source}\n")
        file.flush()
        argv = ["ostree", "admin", "deploy", f"--sysroot={sysroot}", f"--os={STATEROOT}"]
        argv += [f"--origin-file={file.name}", "--karg=root=LABEL=root", "--karg=rw", checksum]
        _run(*argv)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sysroot", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("reference")
    parser.add_argument("digest")
    parser.add_argument("version")
    asked = parser.parse_args()
    if not (asked.sysroot / "ostree/repo").exists():
        prepare(asked.sysroot)
    image = Image(
        asked.reference,
        storage.TRANSPORT,
        digest=asked.digest,
        version=asked.version,
        timestamp="2026-01-01T00:00:00Z",
        architecture="amd64",
    )
    install(asked.sysroot, asked.tree, image)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
