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
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from controllers.abandoning import abandonable
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
CONNECT_S, ANSWER_S = 5.0, 30.0


class HostCluster:
    """Secrets of the host cluster, by the Kubernetes client. `kubeconfig` goes before the cluster
    that we run in; both are read each time, for tokens and certificates in them are renewed."""

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
        read = partial(self._read, reference["namespace"], reference["name"])
        # It may take CONNECT_S and ANSWER_S, and a service that stops has less time than that.
        found = await abandonable(read, name="host cluster")
        revision = str(found["metadata"]["resourceVersion"])
        return Fetched(_contents(found.get("data") or {}, reference), revision, is_secret=True)

    def _read(self, namespace: str, name: str) -> Json:
        # Late, since it is big and most services never ask a host cluster for anything.
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

        shown = f"Secret {namespace}/{name}"
        configuration = client.Configuration()
        try:
            self._configure(config, configuration)
        except config.ConfigException as problem:
            raise Unusable(NAME, f"kubernetes API is not available: {problem}") from problem
        configuration.retries = False
        try:
            with client.ApiClient(configuration) as api:
                answer: Any = client.CoreV1Api(api).read_namespaced_secret(
                    name, namespace, _preload_content=False, _request_timeout=(CONNECT_S, ANSWER_S)
                )
                found: Json = orjson.loads(answer.read(ANSWER_BYTES_MAX))
                return found
        except client.ApiException as problem:
            raise _refused(problem.status or 0, shown) from problem
        except (HTTPError, OSError, ValueError) as problem:
            cause = f"the host cluster did not answer for {shown}: {type(problem).__name__}"
            raise Unusable(NAME, cause, is_passing=True) from problem

    def _configure(self, config: Any, configuration: Any) -> None:
        if self._kubeconfig is not None:
            path = str(self._kubeconfig)
            config.load_kube_config(path, client_configuration=configuration)
            return
        if not self._environment.get("KUBERNETES_SERVICE_HOST"):
            raise Unusable(NAME, NO_CLUSTER)
        try:
            config.incluster_config.InClusterConfigLoader(
                token_filename=str(self._account / "token"),
                cert_filename=str(self._account / "ca.crt"),
                environ={"KUBERNETES_SERVICE_PORT": "443", **self._environment},
            ).load_and_set(configuration)
        except config.ConfigException as problem:
            cause = f"kubernetes API is not available: this pod has no service account: {problem}"
            raise Unusable(NAME, cause) from problem


def _refused(code: int, shown: str) -> Unusable:
    match code:
        case 401 | 403:
            cause = (
                f"the host cluster does not let the service read {shown}: give its service "
                "account a Role with get on it"
            )
            return Unusable(NAME, cause)
        case 404:
            return Unusable(NAME, f"{shown} does not exist in the host cluster")
        case _:
            cause = f"the host cluster answered {code} for {shown}"
            return Unusable(NAME, cause, is_passing=code >= 500 or code == 429)


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
