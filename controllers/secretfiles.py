"""Files from a Secret of the host cluster: each key a file below the mount path.

The host cluster is the one that the controllers run in, or one that a kubeconfig names. It decides
what they may read; here nothing is added to that and nothing taken away. What a Secret holds goes
to the API server and nowhere else: no log, no message, no cache.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from controllers.session import BadKubeconfig, Endpoint, from_kubeconfig
from controllers.sources import Content, Fetched, Unusable
from resources import manifest

Json = dict[str, Any]

NAME = "secretRef.name"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The reference's words, and what to do about it.
NO_CLUSTER = (
    "kubernetes API is not available: the service runs in no cluster; start the controllers with "
    "--host-kubeconfig, or take another source"
)
ANSWER_BYTES_MAX = 4 << 20


class HostCluster:
    """Secrets of the host cluster. `kubeconfig` goes before the cluster that we run in; both are
    read each time, for tokens and certificates in them are renewed."""

    def __init__(
        self,
        kubeconfig: Path | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        account: Path = SERVICE_ACCOUNT,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._environment = environment
        self._account = account

    async def fetch(self, reference: Json) -> Fetched:
        """The files of a `secretRef`. Raises Unusable."""
        endpoint = self._endpoint()
        name, namespace = reference["name"], reference["namespace"]
        shown = f"Secret {namespace}/{name}"
        try:
            found = await _get(endpoint, f"/api/v1/namespaces/{namespace}/secrets/{name}", shown)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as problem:
            cause = f"the host cluster did not answer for {shown}: {type(problem).__name__}"
            raise Unusable(NAME, cause, is_passing=True) from problem
        revision = str(found["metadata"]["resourceVersion"])
        return Fetched(_contents(found.get("data") or {}, reference), revision, is_secret=True)

    def _endpoint(self) -> Endpoint:
        if self._kubeconfig is not None:
            try:
                return from_kubeconfig(self._kubeconfig)
            except BadKubeconfig as problem:
                raise Unusable(NAME, f"kubernetes API is not available: {problem}") from problem
        host = self._environment.get("KUBERNETES_SERVICE_HOST", "")
        port = self._environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise Unusable(NAME, NO_CLUSTER)
        try:
            return Endpoint(
                server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
                ca=(self._account / "ca.crt").read_text(),
                token=(self._account / "token").read_text().strip(),
            )
        except OSError as problem:
            cause = "kubernetes API is not available: this pod has no service account token"
            raise Unusable(NAME, cause) from problem


async def _get(endpoint: Endpoint, path: str, shown: str) -> Json:
    async with (
        endpoint.session() as session,
        session.get(endpoint.server + path, headers={"Accept": "application/json"}) as response,
    ):
        match response.status:
            case 200:
                raw = await response.content.read(ANSWER_BYTES_MAX)
                found: Json = orjson.loads(raw)
                return found
            case 401 | 403:
                cause = (
                    f"the host cluster does not let the service read {shown}: give its service "
                    "account a Role with get on it"
                )
                raise Unusable(NAME, cause)
            case 404:
                raise Unusable(NAME, f"{shown} does not exist in the host cluster")
            case code:
                cause = f"the host cluster answered {code} for {shown}"
                raise Unusable(NAME, cause, is_passing=code >= 500 or code == 429)


def _contents(data: Json, reference: Json) -> list[Content]:
    mount = reference["mountPath"].rstrip("/")
    return [
        Content(
            path=f"{mount}/{_key(key)}",
            blob=_decoded(key, value),
            user=reference.get("user") or manifest.DEFAULT_USER,
            group=reference.get("group") or "",
        )
        for key, value in sorted(data.items())
    ]


def _key(key: str) -> str:
    # Kubernetes allows no slash; another server may.
    if "/" in key or key in ("", ".", ".."):
        raise Unusable(NAME, f'the key "{key}" cannot be the name of a file')
    return key


def _decoded(key: str, value: object) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error:
        raise Unusable(NAME, f'the value of the key "{key}" is not in base64') from None
