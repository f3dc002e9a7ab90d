"""Put an image onto an empty disk: what `bootc install to-filesystem` leaves behind. [simulated]

Run from outside, by whoever makes a device's disk: `python3 -m tests.fakes.bootc.installing prepare
SYSROOT TREE` makes a disk that holds what all images share, once; `install SYSROOT LAYER REFERENCE
DIGEST VERSION` puts an image on a copy of it, which is that and a layer upon it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fakes.bootc import storage
from tests.fakes.bootc.host import Image

STATEROOT = "default"
BASE = "base"


def prepare(sysroot: Path, tree: Path) -> None:
    """A system root without a deployment. A power cut is a kill in these tests, so nothing waits
    for the disk."""
    repo = sysroot / "ostree/repo"
    _run("ostree", "admin", "init-fs", "--epoch=1", str(sysroot))
    _run("ostree", "admin", "os-init", f"--sysroot={sysroot}", STATEROOT)
    for setting in (
        ("sysroot.readonly", "false"),
        ("sysroot.bootloader", "none"),
        ("core.fsync", "false"),
    ):
        _run("ostree", "config", f"--repo={repo}", "set", *setting)
    storage.commit_tree(tree, None, repo, branch=BASE)


def install(sysroot: Path, layer: Path, image: Image) -> None:
    """A first deployment of it, which boots by default."""
    checksum = storage.commit_tree(layer, image, sysroot / "ostree/repo", onto=BASE)
    with tempfile.NamedTemporaryFile("w", suffix=".origin") as file:
        source = f"ostree-unverified-image:{image.transport}:{image.reference}"
        file.write(f"[origin]\ncontainer-image-reference={source}\n")
        file.flush()
        argv = ["ostree", "admin", "deploy", f"--sysroot={sysroot}", f"--os={STATEROOT}"]
        argv += [f"--origin-file={file.name}", "--karg=root=LABEL=root", "--karg=rw", checksum]
        _run(*argv)


def main() -> None:
    match sys.argv[1:]:
        case ["prepare", sysroot, tree]:
            prepare(Path(sysroot), Path(tree))
        case ["install", sysroot, layer, reference, digest, version]:
            image = Image(
                reference,
                storage.TRANSPORT,
                digest=digest,
                version=version,
                timestamp="2026-01-01T00:00:00Z",
                architecture="amd64",
            )
            install(Path(sysroot), Path(layer), image)
        case _:
            sys.exit(__doc__)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
