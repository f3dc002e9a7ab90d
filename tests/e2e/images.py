"""Small container images, made here: no base image, no network, no build tool.

An image is one layer (a static busybox and a few files) and a configuration in Docker's format,
the one that can carry a health check. What it is made from decides its bytes, so that the same
image has the same digest on every machine with the same busybox.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

APPLETS = ("sh", "cat", "date", "echo", "httpd", "ls", "mv", "rm", "sleep", "touch", "wget")
SECOND_NS = 1_000_000_000

# Process 1 of a container ignores signals that it does not handle: without the trap, each stop
# would last until podman loses patience.
SERVE = """#!/bin/sh
trap 'exit 0' TERM INT
httpd -f -p 80 -h /www &
wait
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What goes into an image. `files`: path → content; those under /bin may be executed."""

    files: dict[str, str]
    command: tuple[str, ...] = ("/bin/serve",)
    health: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    # Files and nothing else: what an application or a volume is delivered as.
    is_bare: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """The three documents that a registry holds for an image."""

    manifest: bytes
    config: bytes
    layer: bytes

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def web(version: str, *, healthy: bool = True, ill_after_s: int = 0) -> Image:
    """A web server that says its version. The other kinds serve too, but are never healthy, or are
    so for a while after each start."""
    page = "/version.txt" if healthy else "/never-there.txt"
    serve = SERVE
    if ill_after_s:
        serve = SERVE.replace("wait", f"(sleep {ill_after_s}; rm /www/version.txt) &\nwait")
    return Image(
        files={
            "/bin/serve": serve,
            "/www/index.html": f"web {version}\n",
            "/www/version.txt": f"{version}\n",
        },
        health=("CMD", "/bin/wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:80{page}"),
        labels={"version": version},
    )


def build(image: Image) -> Built:
    tar = _bare_layer(image.files) if image.is_bare else _layer(image.files)
    layer = gzip.compress(tar, 6, mtime=0)
    config = to_json(_config(image, tar))
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
        }
    )
    return Built(manifest, config, layer)


def package(files: dict[str, str]) -> Image:
    """The files of an application, or the content of a volume."""
    return Image(files=files, is_bare=True)


@dataclass(frozen=True, slots=True)
class Artifact:
    """An OCI artifact: a manifest over the files themselves."""

    manifest: bytes
    blobs: tuple[bytes, ...]


def artifact(files: dict[str, str]) -> Artifact:
    blobs = {name: content.encode() for name, content in sorted(files.items())}
    layers = [
        {
            "mediaType": "text/plain",
            "size": len(blob),
            "digest": digest(blob),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, blob in blobs.items()
    ]
    empty = b"{}"
    config = {"mediaType": OCI_EMPTY, "size": len(empty), "digest": digest(empty)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.homeport.test",
        "config": config,
        "layers": layers,
    }
    return Artifact(to_json(manifest), (empty, *blobs.values()))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def busybox() -> Path:
    """The static busybox of this machine. Raises FileNotFoundError."""
    found = shutil.which("busybox") or "/bin/busybox"
    return Path(found).resolve(strict=True)


def _config(image: Image, tar: bytes) -> dict[str, Any]:
    run: dict[str, Any] = {
        "Env": ["PATH=/bin"],
        "Cmd": list(image.command),
        "ExposedPorts": {"80/tcp": {}},
        "Labels": dict(image.labels),
    }
    if image.health:
        run["Healthcheck"] = {
            "Test": list(image.health),
            "Interval": 2 * SECOND_NS,
            "Timeout": 2 * SECOND_NS,
            "Retries": 2,
        }
    return {
        "created": "2026-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
    }


def _layer(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("bin", "etc", "tmp", "www"):
            _add(tar, folder, None, 0o1777 if folder == "tmp" else 0o755)
        _add(tar, "bin/busybox", busybox().read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for path, content in sorted(files.items()):
            name = path.lstrip("/")
            _add(tar, name, content.encode(), 0o755 if name.startswith("bin/") else 0o644)
    return buffer.getvalue()


def _bare_layer(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in sorted(files.items()):
            _add(tar, path.lstrip("/"), content.encode(), 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.mode = mode
    if content is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def json_of(document: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document)
    return found


def to_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
