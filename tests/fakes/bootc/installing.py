"""Put an image onto an empty disk: what `bootc install to-filesystem` leaves behind. [simulated]

Run from outside, by whoever makes a device's disk: `python3 -m tests.fakes.bootc.installing prepare
SYSROOT TREE DIGEST` makes a disk that holds the layer that all images share, once; `install SYSROOT
BASE LAYER REFERENCE DIGEST VERSION` puts an image on a copy of it: that, and a layer upon it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fakes.bootc import storage
from tests.fakes.bootc.host import Image

STATEROOT = "default"


def prepare(sysroot: Path, tree: Path, digest: str) -> None:
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
    storage.commit_tree(tree, None, repo, branch=storage.branch_of(digest))


def install(sysroot: Path, base: str, layer: Path, image: Image) -> None:
    """A first deployment of it, which boots by default."""
    repo, onto = sysroot / "ostree/repo", storage.branch_of(base)
    checksum = storage.commit_tree(layer, image, repo, onto=onto)
    with tempfile.NamedTemporaryFile("w", suffix=".origin") as file:
        source = f"ostree-unverified-image:{image.transport}:{image.reference}"
        file.write(f"[origin]\ncontainer-image-reference={source}\n")
        file.flush()
        argv = ["ostree", "admin", "deploy", f"--sysroot={sysroot}", f"--os={STATEROOT}"]
        argv += [f"--origin-file={file.name}", "--karg=root=LABEL=root", "--karg=rw", checksum]
        _run(*argv)


def main() -> None:
    match sys.argv[1:]:
        case ["prepare", sysroot, tree, digest]:
            prepare(Path(sysroot), Path(tree), digest)
        case ["install", sysroot, base, layer, reference, digest, version]:
            image = Image(
                reference,
                storage.TRANSPORT,
                digest=digest,
                version=version,
                timestamp="2026-01-01T00:00:00Z",
                architecture="amd64",
            )
            install(Path(sysroot), base, Path(layer), image)
        case _:
            sys.exit(__doc__)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
