"""From an image in podman's storage to an ostree commit that can be booted.

bootc reads containers-storage through its own library, a layer at a time, and takes again what it
has of a layer already. So here: of an image that adds one layer to one that the repository holds,
`ostree commit` takes that layer alone; of any other podman mounts the whole, and the tree is taken.
What comes out is the same: the image's files, /etc moved to /usr/etc (where ostree takes a new
deployment's defaults from), and the image's digest, version and date in the commit.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from tests.fakes.bootc.errors import Failed
from tests.fakes.bootc.host import Image

TRANSPORT = "containers-storage"
VERSION_LABEL = "org.opencontainers.image.version"
# Commit metadata. The first is ostree-ext's own key.
DIGEST_KEY, TIMESTAMP_KEY, ARCHITECTURE_KEY = (
    "ostree.manifest-digest",
    "homeport.timestamp",
    "homeport.architecture",
)


def inspect(reference: str) -> Image:
    """What podman knows of it. Raises Failed if podman does not have it."""
    shown = json.loads(_output("podman", "image", "inspect", reference))[0]
    labels = shown.get("Labels") or {}
    return Image(
        reference,
        TRANSPORT,
        digest=shown["Digest"],
        version=labels.get(VERSION_LABEL),
        timestamp=shown.get("Created"),
        architecture=shown.get("Architecture"),
    )


def branch_of(layer: str) -> str:
    """Where the repository keeps a layer that images share, by the digest of what it holds."""
    return f"layer/{layer.removeprefix('sha256:')}"


def commit(image: Image, repo: Path) -> str:
    """The checksum of a new commit of the image's tree."""
    shown = json.loads(_output("podman", "image", "inspect", image.reference))[0]
    bottom, *above = shown["RootFS"]["Layers"]
    onto = branch_of(bottom)
    top = Path(shown["GraphDriver"]["Data"]["UpperDir"])
    is_there = onto in _output("ostree", "refs", f"--repo={repo}").split()
    if len(above) == 1 and is_there and not _takes_away(top):
        return commit_tree(top, image, repo, onto=onto)
    mounted = Path(_output("podman", "image", "mount", image.reference).strip())
    try:
        return commit_tree(mounted, image, repo)
    finally:
        subprocess.run(["podman", "image", "unmount", image.reference], capture_output=True)


def commit_tree(
    tree: Path, image: Image | None, repo: Path, *, onto: str = "", branch: str = ""
) -> str:
    """The checksum of a new commit of the tree, upon that of another commit if one is named."""
    with tempfile.TemporaryDirectory(dir=repo / "tmp") as work:
        moved = Path(work) / "moved"
        (moved / "usr").mkdir(parents=True)
        if (tree / "etc").is_dir():
            shutil.copytree(tree / "etc", moved / "usr/etc", symlinks=True)
            _copy_owners(tree / "etc", moved / "usr/etc")
        skipped = Path(work) / "skipped"
        skipped.write_text("/etc\n")
        argv = ["ostree", "commit", f"--repo={repo}", "--bootable", "--no-xattrs", "--no-bindings"]
        argv += [f"--branch={branch}"] if branch else ["--orphan"]
        argv += [f"--tree=ref={onto}"] if onto else []
        argv += [f"--tree=dir={tree}", f"--tree=dir={moved}", f"--skip-list={skipped}"]
        argv += [f"--add-metadata-string={k}={v}" for k, v in _metadata(image).items() if v]
        return _output(*argv).strip()


def _takes_away(layer: Path) -> bool:
    """Whether it hides something of the layers below: overlayfs' whiteouts, opaque folders."""
    for folder, _, files in os.walk(layer):
        if any(name.endswith("overlay.opaque") for name in os.listxattr(folder)):
            return True
        if any(stat.S_ISCHR(os.lstat(f"{folder}/{name}").st_mode) for name in files):
            return True
    return False


def _metadata(image: Image | None) -> dict[str, str | None]:
    if image is None:
        return {}
    return {
        "version": image.version,
        DIGEST_KEY: image.digest,
        TIMESTAMP_KEY: image.timestamp,
        ARCHITECTURE_KEY: image.architecture,
    }


def _copy_owners(source: Path, target: Path) -> None:
    for path in (source, *source.rglob("*")):
        at = path.lstat()
        copied = target / path.relative_to(source)
        os.lchown(copied, at.st_uid, at.st_gid)
        if not path.is_symlink():
            copied.chmod(at.st_mode & 0o7777)


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(argv[:3])}: {done.stderr.strip()}")
    return done.stdout
