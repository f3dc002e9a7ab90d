"""Operating system images for devices, made here without a network, and disks that hold one.

An image is two layers. The *base* is the cached Debian 13 root, laid out as a bootable image is
(/var empty, /ostree, a kernel's place): 300 MB, made once, never uploaded and never pulled, since
the registry and the devices hold it from the beginning. The layer upon it is small and made in
milliseconds: the agent, the stand-ins for bootc and greenboot, what makes this version different.
So the agent is part of the system, and a system whose agent does not start can be built.

[simulated]: bootc, greenboot, the boot loader and the initial RAM disk (`PREPARE_ROOT`); the kernel
in the image is a place-holder, since devices run on this machine's.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import images, rootfs
from tests.e2e.checkout import CHECKOUT
from tests.e2e.registry import Registry

NAME = "os"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = f"{LAYER}+gzip"
BASE = "localhost/base:1"
# Where devices see the base in a storage that all of them share, as a factory would have filled it.
SHARED_STORE = "/usr/share/factory-images"

EMPTIED = ("boot", "dev", "proc", "run", "sys", "tmp", "var", "sysroot")
INTO_VAR = {"home": "home", "mnt": "mnt", "opt": "opt", "root": "roothome", "srv": "srv"}
KERNEL = "usr/lib/modules/6.12-placeholder"
# What the initial RAM disk of an ostree system does, as far as it is not done from outside: this
# is process 1 until it becomes systemd.
PREPARE_ROOT = """#!/bin/sh
mount --bind /sysroot/.cmdline /proc/cmdline
: > /run/ostree-booted
exec /usr/lib/systemd/systemd
"""
TMPFILES = """d /var/roothome 0700 root root -
d /var/home 0755 root root -
d /var/opt 0755 root root -
d /var/log/journal 0755 root root -
d /var/cache/homeport-agent 0755 root root -
"""
STORAGE_CONF = f"""[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
[storage.options]
additionalimagestores = ["{SHARED_STORE}"]
"""
LAUNCHER = """#!/usr/bin/python3
import sys
sys.pycache_prefix = "/var/cache/homeport-agent"
sys.path.insert(0, "{folder}")
from {module} import main
sys.exit(main())
"""
# Its agent ends at once, and so does every later attempt of systemd's to start it.
DEAD_AGENT = """#!/bin/sh
echo 'flightctl-agent: this build is broken' >&2
exit 1
"""
UNITS = "usr/lib/systemd/system"
# The agent's own scripts for greenboot; in a test nobody waits minutes, nor three times.
CHECKS = CHECKOUT / "agent/packaging/greenboot"
ATTEMPTS = 2
GREENBOOT_CONF = f"""GREENBOOT_MAX_BOOT_ATTEMPTS={ATTEMPTS}
FLIGHTCTL_HEALTH_CHECK_TIMEOUT=20
FLIGHTCTL_HEALTH_STABILITY_WINDOW=2
FLIGHTCTL_HEALTH_POLL_INTERVAL=1
"""
EDITENV = """#!/bin/sh
exec cat /boot/grub2/grubenv
"""
GREENBOOT = CHECKOUT / "tests/fakes/greenboot"
GREENBOOT_UNITS = {
    "greenboot-healthcheck.service": ("boot-complete.target.requires", "multi-user.target.wants"),
    "greenboot-grub2-set-success.service": ("multi-user.target.wants",),
    "greenboot-rpm-ostree-grub2-check-fallback.service": ("multi-user.target.wants",),
    "redboot-auto-reboot.service": (),
}


@dataclass(frozen=True, slots=True)
class Base:
    """What all images share, in the cache."""

    folder: Path
    digest: str

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def layer(self) -> Path:
        return self.folder / "oci/blobs/sha256" / self.digest.removeprefix("sha256:")

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def disk(self) -> Path:
        return self.folder / "disk"


@dataclass(frozen=True, slots=True)
class File:
    """One of a layer; a symbolic link if `target` is set."""

    content: bytes = b""
    mode: int = 0o644
    target: str = ""


Layer = dict[str, File]


# The base. ----------------------------------------------------------------------------------------


def base() -> Base:
    """Out of the cache if it is there; some seconds the first time."""
    root = rootfs.make()
    made_from = json.dumps([rootfs.key(), EMPTIED, INTO_VAR, KERNEL, TMPFILES, STORAGE_CONF, 3])
    bases = rootfs.cache() / "bases"
    bases.mkdir(parents=True, exist_ok=True)
    folder = bases / hashlib.sha256(made_from.encode()).hexdigest()[:16]
    with (bases / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            making = bases / ".making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _lay_out(root, making / "tree")
            _pack(making)
            (making / "disk").mkdir()
            digest = (making / "digest").read_text()
            _run_installing(making / "disk", making / "tree", "prepare", "/mnt", "/media", digest)
            making.rename(folder)
    return Base(folder, (folder / "digest").read_text())


def _lay_out(root: Path, tree: Path) -> None:
    """The root as a bootable image has it. Hard links: what is changed is replaced, not written."""
    subprocess.run(["cp", "--archive", "--link", root, tree], check=True)
    for name in (*EMPTIED, *INTO_VAR, "media"):
        shutil.rmtree(tree / name, ignore_errors=True)
    for name in EMPTIED:
        (tree / name).mkdir()
    (tree / "tmp").chmod(0o1777)
    (tree / "ostree").symlink_to("sysroot/ostree")
    for name, inside in INTO_VAR.items():
        (tree / name).symlink_to(f"var/{inside}")
    for name, text in {
        f"{KERNEL}/vmlinuz": "a place-holder\n",
        f"{KERNEL}/initramfs.img": "a place-holder\n",
        "usr/lib/tmpfiles.d/os-image.conf": TMPFILES,
        "etc/containers/storage.conf": STORAGE_CONF,
        f"{SHARED_STORE.lstrip('/')}/.keep": "",
        "usr/bin/flightctl-agent": "",
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)


def _pack(folder: Path) -> None:
    """The tree as a layer, an image of that one layer, and podman's storage with that in it."""
    blobs = folder / "oci/blobs/sha256"
    blobs.mkdir(parents=True)
    tar = folder / "layer.tar"
    argv = ["tar", "--create", f"--file={tar}", f"--directory={folder / 'tree'}", "--sort=name"]
    subprocess.run([*argv, "--numeric-owner", "--mtime=@0", "."], check=True)
    with tar.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    size = tar.stat().st_size
    tar.rename(blobs / digest.removeprefix("sha256:"))
    config = images.to_json(_config([digest], {}))
    manifest = images.to_json(_manifest(config, [(LAYER, size, digest)]))
    for blob in (config, manifest):
        (blobs / images.digest(blob).removeprefix("sha256:")).write_bytes(blob)
    listed = {"mediaType": MANIFEST, "size": len(manifest), "digest": images.digest(manifest)}
    index = {"schemaVersion": 2, "manifests": [listed]}
    (folder / "oci/index.json").write_bytes(images.to_json(index))
    (folder / "oci/oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    store = f"containers-storage:[overlay@{folder / 'store'}+{folder / 'run'}]{BASE}"
    argv = ["skopeo", "copy", "--quiet", f"oci:{folder / 'oci'}", store]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"skopeo: {done.stderr[-1000:]}")
    subprocess.run(["umount", "--lazy", folder / "store/overlay"], capture_output=True)
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "digest").write_text(digest)


# An image. ----------------------------------------------------------------------------------------


def system(version: str, *, has_agent: bool = True, extra: Layer | None = None) -> Layer:
    """What a version of the operating system has on top of the base.

    Without `has_agent` its agent ends at once.
    """
    layer: Layer = {
        "usr/lib/os-version": File(f"{version}\n".encode()),
        "usr/lib/prepare-root": File(PREPARE_ROOT.encode(), 0o755),
        "usr/bin/bootc": _launcher("/usr/lib/bootc-standin", "tests.fakes.bootc.__main__"),
        "usr/bin/flightctl-agent": _launcher("/usr/lib/homeport", "agent.__main__")
        if has_agent
        else File(DEAD_AGENT.encode(), 0o755),
    }
    for package in ("agent", "resources"):
        layer |= _sources(package, "usr/lib/homeport")
    layer |= _sources("tests/fakes/bootc", "usr/lib/bootc-standin")
    unit = "flightctl-agent.service"
    layer[f"{UNITS}/{unit}"] = File((CHECKOUT / "agent" / unit).read_bytes())
    layer[f"etc/systemd/system/multi-user.target.wants/{unit}"] = File(target=f"/{UNITS}/{unit}")
    for hook in (CHECKOUT / "agent/hooks.d").rglob("*.yaml"):
        inside = hook.relative_to(CHECKOUT / "agent")
        layer[f"usr/lib/flightctl/{inside}"] = File(hook.read_bytes())
    return layer | _greenboot() | (extra or {})


def reference(version: str) -> str:
    """What a device calls it."""
    return f"localhost:{rootfs.REGISTRY_PORT}/{NAME}:{version}"


def push(registry: Registry, version: str, layer: Layer) -> str:
    """Make it an image `os:version` of the registry; its digest."""
    bottom = base()
    registry.adopt(NAME, bottom.layer, bottom.digest)
    tar = _tar(layer)
    blob = gzip.compress(tar, 1, mtime=0)
    label = {"org.opencontainers.image.version": version, "containers.bootc": "1"}
    config = images.to_json(_config([bottom.digest, images.digest(tar)], label))
    layers = [
        (LAYER, bottom.layer.stat().st_size, bottom.digest),
        (LAYER_GZIP, len(blob), images.digest(blob)),
    ]
    manifest = images.to_json(_manifest(config, layers))
    registry.put(NAME, version, manifest, MANIFEST, (config, blob))
    return images.digest(manifest)


def _greenboot() -> Layer:
    drop_in = f"{UNITS}/ostree-finalize-staged.service.d/10-greenboot.conf"
    layer = {
        "usr/libexec/greenboot/greenboot": File((GREENBOOT / "greenboot.sh").read_bytes(), 0o755),
        "usr/bin/grub2-editenv": File(EDITENV.encode(), 0o755),
        "etc/greenboot/greenboot.conf": File(GREENBOOT_CONF.encode()),
        drop_in: File((GREENBOOT / "10-greenboot.conf").read_bytes()),
    }
    for script in CHECKS.rglob("*.sh"):
        inside = f"usr/lib/greenboot/{script.relative_to(CHECKS)}"
        layer[inside] = File(script.read_bytes(), 0o755)
    for unit, wanted_by in GREENBOOT_UNITS.items():
        layer[f"{UNITS}/{unit}"] = File((GREENBOOT / unit).read_bytes())
        layer |= {f"{UNITS}/{folder}/{unit}": File(target=f"../{unit}") for folder in wanted_by}
    return layer


def _launcher(folder: str, module: str) -> File:
    return File(LAUNCHER.format(folder=folder, module=module).encode(), 0o755)


def _sources(package: str, into: str) -> Layer:
    found = sorted((CHECKOUT / package).rglob("*.py"))
    return {f"{into}/{path.relative_to(CHECKOUT)}": File(path.read_bytes()) for path in found}


def _tar(layer: Layer) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, file in sorted(layer.items()):
            info = tarfile.TarInfo(name)
            info.mode = file.mode
            if file.target:
                info.type, info.linkname = tarfile.SYMTYPE, file.target
            info.size = len(file.content)
            tar.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def _config(layers: list[str], labels: dict[str, str]) -> dict[str, Any]:
    return {
        "created": "2026-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": layers},
    }


def _manifest(config: bytes, layers: list[tuple[str, int, str]]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": images.digest(config)},
        "layers": [{"mediaType": t, "size": s, "digest": d} for t, s, d in layers],
    }


# A disk. ------------------------------------------------------------------------------------------

INSTALLING = """set -e
mount --bind "$DISK" "$ROOT/mnt"
mount --bind "$TREE" "$ROOT/media"
mount --bind "$CHECKOUT" "$ROOT/opt/homeport"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
exec chroot "$ROOT" env -i PATH=/usr/bin:/usr/sbin PYTHONDONTWRITEBYTECODE=1 \\
  OSTREE_SYSROOT_DEBUG=mutable-deployments OSTREE_SYSROOT_OPTS=skip-sync \\
  PYTHONPATH=/opt/homeport python3 -m tests.fakes.bootc.installing "$@"
"""


def install(disk: Path, layer: Layer, reference: str, digest: str, version: str) -> None:
    """A new disk with this image on it. Devices get copies of it."""
    # Objects are never written in place, so the many of the base are linked.
    subprocess.run(["cp", "--archive", "--link", base().disk, disk], check=True)
    config = disk / "ostree/repo/config"
    text = config.read_text()
    config.unlink()
    config.write_text(text)
    upper = disk.with_name(f"{disk.name}.layer")
    with tarfile.open(fileobj=io.BytesIO(_tar(layer))) as tar:
        tar.extractall(upper, filter="fully_trusted")
    try:
        argv = ["install", "/mnt", base().digest, "/media", reference, digest, version]
        _run_installing(disk, upper, *argv)
    finally:
        shutil.rmtree(upper)


def _run_installing(disk: Path, tree: Path, *argv: str) -> None:
    """With the ostree of the devices, in a root of theirs, where mounts of ours do not stay."""
    paths = {"DISK": disk, "ROOT": rootfs.make(), "TREE": tree, "CHECKOUT": CHECKOUT}
    env = os.environ | {name: str(path) for name, path in paths.items()}
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALLING, "install"]
    done = subprocess.run([*shell, *argv], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the disk was not made:\n{done.stderr[-2000:]}")
