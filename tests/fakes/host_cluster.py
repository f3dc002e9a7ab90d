"""A stand-in for the cluster that the controllers run in: Secrets by name, for one token.

with host_cluster.running(folder) as cluster:
    cluster.put("devices", "name", password=b"...")
    HostCluster(cluster.kubeconfig)
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.tls_listener import serving


@dataclass
class Cluster:
    kubeconfig: Path
    token: str = "let-me-in"
    version: int = 0
    secrets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def put(self, namespace: str, name: str, **data: bytes) -> str:
        """Create or replace a Secret; its resourceVersion."""
        self.version += 1
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self.version)}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}
        self.secrets[namespace, name] = secret
        return str(self.version)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    print("[simulated] the host cluster is a stand-in that knows nothing but Secrets")
    cluster = Cluster(folder / "host.kubeconfig")
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    document = {
        "current-context": "host",
        "contexts": [{"name": "host", "context": {"cluster": "host", "user": "us"}}],
        "clusters": [
            {
                "name": "host",
                "cluster": {"server": f"http://127.0.0.1:{listener.server_address[1]}"},
            }
        ],
        "users": [{"name": "us", "user": {"token": cluster.token}}],
    }
    cluster.kubeconfig.write_text(yaml.safe_dump(document))
    with serving(listener):
        yield cluster


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            _, _, _, _, namespace, _, name = self.path.split("/")
            found: dict[str, Any] | None = cluster.secrets.get((namespace, name))
            status = 200 if found else 404
            if self.headers.get("Authorization") != f"Bearer {cluster.token}":
                status, found = 403, None
            body = json.dumps(found or {"kind": "Status", "code": status}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
