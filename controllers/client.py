"""A thin client of the Kubernetes protocol: what the controllers ask, and how they are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

Json = dict[str, Any]

FLIGHTCTL = "flightctl.io/v1beta1"
HOMEPORT = "homeport.dev/v1alpha1"
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = (
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json;q=0.5"
)


class ApiError(Exception):
    """The API server refused: `code` and `reason` are those of its Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class Unreachable(Exception):
    """No answer. Trying again later is right."""


class Client:
    """Requests below `/apis/<group version>/namespaces/<namespace>/<plural>`."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server.rstrip("/")

    async def get(self, api: str, namespace: str, plural: str, name: str) -> Json | None:
        """The object, or None when it is gone."""
        try:
            return await self._ask("GET", _path(api, namespace, plural, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list_all(self, api: str, plural: str) -> Sequence[Json]:
        """Of every namespace."""
        answer = await self._ask("GET", f"/apis/{api}/{plural}")
        items: Sequence[Json] = answer["items"]
        return items

    async def list_in(self, api: str, namespace: str, plural: str, fields: str = "") -> list[Json]:
        return await self._list(api, namespace, plural, fields, "application/json")

    async def heads(self, api: str, namespace: str, plural: str, fields: str = "") -> list[Json]:
        """The metadata of what `list_in` would give, without the bodies."""
        found = await self._list(api, namespace, plural, fields, METADATA_ONLY)
        return [item["metadata"] for item in found]

    async def _list(
        self, api: str, namespace: str, plural: str, fields: str, accept: str
    ) -> list[Json]:
        query = {"fieldSelector": fields} if fields else {}
        answer = await self._ask("GET", _path(api, namespace, plural), query=query, accept=accept)
        items: list[Json] = answer["items"]
        return items

    async def create(self, api: str, namespace: str, plural: str, document: Json) -> Json:
        return await self._ask("POST", _path(api, namespace, plural), body=document)

    async def patch_status(
        self, api: str, namespace: str, plural: str, name: str, status: Json
    ) -> Json:
        path = _path(api, namespace, plural, name, "status")
        return await self._ask("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)

    # --- what is frozen -------------------------------------------------------------------------

    async def credentials(self, namespace: str, repository: str) -> Json | None:
        """The Repository with what everybody else sees masked; None when it is gone."""
        return await self.get(FLIGHTCTL, namespace, "repositories", f"{repository}/credentials")

    async def has_content(self, namespace: str, digest: str) -> bool:
        """Whether the API server has these bytes; if so, it keeps them for another hour."""
        path = _path(HOMEPORT, namespace, "contents", digest)
        try:
            await self._send("HEAD", path)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def post_content(self, namespace: str, blob: bytes, *, is_secret: bool = False) -> str:
        """Store bytes; the digest that they have there."""
        query = {"secret": "true"} if is_secret else {}
        path = _path(HOMEPORT, namespace, "contents")
        binary = "application/octet-stream"
        raw = await self._send("POST", path, query=query, data=blob, content_type=binary)
        return str(orjson.loads(raw)["digest"])

    async def following(self, namespace: str, after: str) -> Json:
        """A page of the devices without fleet that follow outside sources: {items, after}."""
        path = _path(HOMEPORT, namespace, "backlogs", "devices", "following")
        return await self._ask("GET", path, query={"after": after})

    async def hand_over(self, namespace: str, device: str, request: Json) -> Json:
        path = _path(FLIGHTCTL, namespace, "devices", device, "inputs")
        return await self._ask("POST", path, body=request)

    async def values(
        self, namespace: str, version: str, *, state: str, after: str = "", limit: int = 0
    ) -> Json:
        """A page of what single devices need from outside, or got: {items, after}."""
        path = _path(FLIGHTCTL, namespace, "templateversions", version, "values")
        query = {"state": state, "after": after, "limit": str(limit)}
        return await self._ask("GET", path, query=query)

    async def settle(self, namespace: str, version: str, outcomes: Sequence[Json]) -> int:
        """Say what came of some of it; how much of that was news."""
        path = _path(FLIGHTCTL, namespace, "templateversions", version, "values")
        answer = await self._ask("POST", path, body={"outcomes": list(outcomes)})
        return int(answer["changed"])

    # --- sets of devices ------------------------------------------------------------------------

    async def update(
        self, api: str, namespace: str, plural: str, name: str, document: Json
    ) -> Json:
        """Replace; with a resourceVersion in it, only that version."""
        return await self._ask("PUT", _path(api, namespace, plural, name), body=document)

    async def delete(self, api: str, namespace: str, plural: str, document: Json) -> None:
        """Delete this very object as it was read; one that is gone is fine."""
        metadata = document["metadata"]
        wanted = {key: metadata[key] for key in ("uid", "resourceVersion")}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": wanted}
        try:
            path = _path(api, namespace, plural, metadata["name"])
            await self._ask("DELETE", path, body=options)
        except ApiError as error:
            if error.code != 404:
                raise

    async def post_event(self, namespace: str, event: Json) -> None:
        await self._ask("POST", f"/api/v1/namespaces/{namespace}/events", body=event)

    async def progress(self, namespace: str, fleet: str, rollout: str) -> Json:
        path = _path(FLIGHTCTL, namespace, "fleets", fleet, "progress")
        return await self._ask("GET", path, query={"rollout": rollout})

    async def bind(self, namespace: str, fleet: str, request: Json) -> Json:
        path = _path(FLIGHTCTL, namespace, "fleets", fleet, "bindings")
        return await self._ask("POST", path, body=request)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        data = None if body is None else orjson.dumps(body)
        raw = await self._send(
            method, path, query=query, data=data, content_type=content_type, accept=accept
        )
        answer: Json = orjson.loads(raw)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        headers = {
            "Content-Type": content_type,
            "Accept": accept,
            "User-Agent": "homeport-controllers",
        }
        try:
            async with self._session.request(
                method, self._server + path, params=query, data=data, headers=headers
            ) as response:
                raw = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error
        if response.status >= 400:
            raise _refusal(response.status, raw)
        return raw


def _refusal(code: int, raw: bytes) -> ApiError:
    try:
        status = orjson.loads(raw)
        return ApiError(code, str(status.get("reason", "")), str(status.get("message", "")))
    except (orjson.JSONDecodeError, AttributeError):
        return ApiError(code, "", raw[:200].decode(errors="replace"))


def _path(api: str, namespace: str, plural: str, *rest: str) -> str:
    return "/".join((f"/apis/{api}/namespaces/{namespace}", plural, *rest))
