"""A container registry on the loopback, and images put into it."""

from __future__ import annotations

import http.client
import os
import subprocess
import urllib.parse
from pathlib import Path
from types import TracebackType

from tests.e2e import images, processes
from tests.fakes import ports

ARGV = ("docker-registry", "serve")
HELD = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


class Registry:
    """The registry of the distribution, plain HTTP. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = ports.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "registry.yml"
        settings.write_text(HELD.format(data=self.folder / "data", port=self.port))
        # It takes every REGISTRY_* of the environment for a setting of its own, podman's too.
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        log = self.folder / "registry.log"
        self._process = processes.start([*ARGV, settings], log, env=env)
        processes.until(
            self._answers, "the registry serves", timeout_s=20, state=lambda: processes.tail(log)
        )

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process)
            self._process = None

    def push(self, name: str, tag: str, image: images.Image) -> str:
        """Put an image in; what devices pull it by."""
        built = images.build(image)
        return self.put(name, tag, built.manifest, images.MANIFEST, (built.layer, built.config))

    def put(
        self, name: str, tag: str, manifest: bytes, media_type: str, blobs: tuple[bytes, ...]
    ) -> str:
        for blob in blobs:
            self._upload(name, blob)
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", manifest, media_type)
        return f"{self.host}/{name}:{tag}"

    def push_artifact(self, name: str, tag: str, artifact: images.Artifact) -> None:
        for blob in artifact.blobs:
            self._upload(name, blob)
        path = f"/v2/{name}/manifests/{tag}"
        self._ask("PUT", path, artifact.manifest, images.OCI_MANIFEST)

    def adopt(self, name: str, blob: Path, digest: str) -> None:
        """Hold a large blob without a byte being sent: it is linked into where it would lie."""
        kind, _, hexadecimal = digest.partition(":")
        held = self.folder / "data/docker/registry/v2"
        data = held / "blobs" / kind / hexadecimal[:2] / hexadecimal / "data"
        link = held / "repositories" / name / "_layers" / kind / hexadecimal / "link"
        for file in (data, link):
            file.parent.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            data.symlink_to(blob)
        link.write_text(digest)

    def _upload(self, name: str, blob: bytes) -> None:
        digest = images.digest(blob)
        if self._ask("HEAD", f"/v2/{name}/blobs/{digest}", missing_is_fine=True) is not None:
            return
        location = self._ask("POST", f"/v2/{name}/blobs/uploads/")
        assert location is not None
        parts = urllib.parse.urlsplit(location)
        query = urllib.parse.urlencode([*urllib.parse.parse_qsl(parts.query), ("digest", digest)])
        self._ask("PUT", f"{parts.path}?{query}", blob, "application/octet-stream")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "",
        *,
        missing_is_fine: bool = False,
    ) -> str | None:
        """The Location of the answer; None for a 404 that is fine."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 404 and missing_is_fine:
                return None
            if answer.status >= 400:
                raise RuntimeError(f"registry: {method} {path}: {answer.status} {text[:300]!r}")
            return answer.getheader("Location") or ""
        finally:
            connection.close()

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(processes.tail(self.folder / "registry.log"))
        try:
            return self._ask("GET", "/v2/") is not None
        except OSError:
            return False
