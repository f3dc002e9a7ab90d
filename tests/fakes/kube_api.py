"""A small API server that speaks the Kubernetes protocol from dicts: what kopf and the controllers
need, with faults. Devices are numbers: `devices[fleet]` says how many are unbound, done, failed."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Key = tuple[str, str, str]

FLIGHTCTL, HOMEPORT = "flightctl.io/v1beta1", "homeport.dev/v1alpha1"
KINDS = {
    "fleets": (FLIGHTCTL, "Fleet"),
    "repositories": (FLIGHTCTL, "Repository"),
    "resourcesyncs": (FLIGHTCTL, "ResourceSync"),
    "templateversions": (FLIGHTCTL, "TemplateVersion"),
    "rollouts": (HOMEPORT, "Rollout"),
    "backlogs": (HOMEPORT, "Backlog"),
}
FIELDS = {"spec.fleet", "spec.target.fleet"}


@dataclass
class Devices:
    """The devices of a fleet as counts. What is bound is done at once if `eager`."""

    unbound: int = 0
    busy: int = 0
    done: int = 0
    failed: int = 0
    timed_out: int = 0
    disconnected: int = 0
    blocked: int = 0
    eager: bool = True
    bindable: bool = True
    template: str = ""

    @property
    def total(self) -> int:
        under_way = self.busy + self.done + self.failed + self.timed_out
        return self.unbound + under_way + self.blocked

    def retarget(self, template: str) -> None:
        if template != self.template:
            self.template = template
            self.unbound += self.busy + self.done + self.failed
            self.busy = self.done = self.failed = 0

    def bind(self, limit: int) -> int:
        taken = min(limit, self.unbound) if self.bindable else 0
        self.unbound -= taken
        if self.eager:
            self.done += taken
        else:
            self.busy += taken
        return taken


@dataclass
class KubeApi:
    """The store, and its faces. `requests` holds (method, path) of everything that was asked."""

    objects: dict[Key, Json] = field(default_factory=dict)
    version: int = 0
    log: list[tuple[int, str, Key, Json]] = field(default_factory=list)
    devices: dict[str, Devices] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    # Answers instead of the real one, by predicate on (method, path).
    fault: Callable[[str, str], web.Response | None] | None = None
    compacted: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _generation: int = 0

    # --- the store ------------------------------------------------------------------------

    def put(self, plural: str, name: str, body: Json, namespace: str = "default") -> Json:
        """Create or replace, as an administrator would; generation moves with spec."""
        key = (plural, namespace, name)
        old = self.objects.get(key)
        api, kind = KINDS[plural]
        known: Json = old["metadata"] if old else {"uid": f"uid-{self.version}", "generation": 0}
        changed = old is None or old.get("spec") != body.get("spec")
        metadata = {**body.get("metadata", {}), **known, "name": name, "namespace": namespace}
        metadata["generation"] = known["generation"] + int(changed)
        status = {"status": old["status"]} if old and "status" in old else {}
        document = {"apiVersion": api, "kind": kind, **status, **body, "metadata": metadata}
        return self._store("MODIFIED" if old else "ADDED", key, document)

    def delete(self, plural: str, name: str, namespace: str = "default") -> None:
        key = (plural, namespace, name)
        gone = self.objects.pop(key)
        self._record("DELETED", key, gone)

    def get(self, plural: str, name: str, namespace: str = "default") -> Json | None:
        return self.objects.get((plural, namespace, name))

    def names(self, plural: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == plural)

    def join(self, fleet: str, number: int) -> None:
        """Devices come to a fleet; the Backlog says so."""
        self.devices.setdefault(fleet, Devices()).unbound += number
        self.tell_backlog()

    def tell_backlog(self) -> None:
        waiting = {name: d.unbound for name, d in self.devices.items() if d.unbound}
        status = {"renderNeeded": sum(waiting.values()), "fleets": waiting}
        if (self.get("backlogs", "devices") or {}).get("status") != status:
            self.put("backlogs", "devices", {"status": status})

    def compact(self) -> None:
        """Forget the past: a watch that resumes before now is told 410."""
        self.log.clear()
        self.compacted = self.version

    def _store(self, type_: str, key: Key, document: Json) -> Json:
        old = self.objects.get(key)
        if old is not None and _bare(old) == _bare(document):
            return old
        self.objects[key] = document
        self._record(type_, key, document)
        return document

    def _record(self, type_: str, key: Key, document: Json) -> None:
        self.version += 1
        document["metadata"] = {**document["metadata"], "resourceVersion": str(self.version)}
        self.log.append((self.version, type_, key, copy.deepcopy(document)))
        self._changed.set()
        self._changed = asyncio.Event()

    # --- the faces ------------------------------------------------------------------------

    @asynccontextmanager
    async def served(self, socket: Path) -> AsyncIterator[None]:
        """Listens on a UNIX socket; leaving drops all connections, as a killed process does."""
        socket.unlink(missing_ok=True)
        runner = web.AppRunner(self._app(), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        try:
            yield
        finally:
            # A watch does not end by itself.
            self._generation += 1
            self._changed.set()
            self._changed = asyncio.Event()
            await runner.cleanup()
            socket.unlink(missing_ok=True)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._faulty])
        app.router.add_get("/api", _fixed({"versions": ["v1"]}))
        namespaces = _resource("namespaces", "Namespace", namespaced=False)
        app.router.add_get("/api/v1", _fixed({"resources": [namespaces]}))
        app.router.add_get("/apis", _fixed({"groups": [_group(FLIGHTCTL), _group(HOMEPORT)]}))
        for api in (FLIGHTCTL, HOMEPORT):
            app.router.add_get(f"/apis/{api}", _fixed({"resources": _resources(api)}))
            base = f"/apis/{api}/namespaces/{{namespace}}/{{plural}}"
            app.router.add_get(f"/apis/{api}/{{plural}}", self._list)
            app.router.add_get(base, self._list)
            app.router.add_post(base, self._create)
            app.router.add_get(base + "/{name}", self._get)
            app.router.add_patch(base + "/{name}", self._patch)
            app.router.add_patch(base + "/{name}/status", self._patch)
        fleet = f"/apis/{FLIGHTCTL}/namespaces/{{namespace}}/fleets/{{name}}"
        app.router.add_get(fleet + "/progress", self._progress)
        app.router.add_post(fleet + "/bindings", self._bind)
        return app

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        answer = self.fault(request.method, request.path) if self.fault else None
        if answer is not None:
            return answer
        result: web.StreamResponse = await handler(request)
        return result

    def _selected(self, request: web.Request) -> list[Json]:
        plural = request.match_info["plural"]
        namespace = request.match_info.get("namespace")
        wanted = request.query.get("fieldSelector", "")
        path, _, value = wanted.partition("=")
        assert not path or path in FIELDS, wanted
        return [
            document
            for (kind, within, _), document in sorted(self.objects.items())
            if kind == plural
            and namespace in (None, within)
            and (not path or _at(document, path) == value)
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        items = self._selected(request)
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": item["metadata"]} for item in items]
        return web.json_response(
            {"metadata": {"resourceVersion": str(self.version)}, "items": items}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        seen, generation = int(request.query["resourceVersion"]), self._generation
        if seen < self.compacted:
            return _status(410, "Expired", "too old")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        plural = request.match_info["plural"]
        while self._generation == generation:
            changed = self._changed
            for version, type_, key, document in list(self.log):
                if version > seen and key[0] == plural:
                    line = json.dumps({"type": type_, "object": document}).encode()
                    await response.write(line + b"\n")
            seen = self.version
            await changed.wait()
        return response

    async def _get(self, request: web.Request) -> web.Response:
        document = self.objects.get(_key(request))
        return web.json_response(document) if document else _status(404, "NotFound", "not found")

    async def _create(self, request: web.Request) -> web.Response:
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        body = await request.json()
        name = body["metadata"]["name"]
        if self.get(plural, name, namespace) is not None:
            return _status(409, "AlreadyExists", f"{name} already exists")
        stored = self.put(plural, name, body, namespace)
        if plural == "templateversions":
            self.devices.setdefault(body["spec"]["fleet"], Devices()).retarget(name)
            self.tell_backlog()
        return web.json_response(stored, status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        key = _key(request)
        old = self.objects.get(key)
        if old is None:
            return _status(404, "NotFound", "not found")
        new = _merged(old, await request.json())
        return web.json_response(self._store("MODIFIED", key, new))

    async def _progress(self, request: web.Request) -> web.Response:
        devices = self.devices.setdefault(request.match_info["name"], Devices())
        bound = devices.total - devices.unbound - devices.blocked
        counts = {"total": devices.total, "selected": devices.total, "bound": bound}
        counts |= {"rendered": bound, "done": devices.done, "failed": devices.failed}
        counts |= {"timedOut": devices.timed_out, "disconnected": devices.disconnected}
        counts |= {"unbound": devices.unbound, "held": 0, "blocked": devices.blocked}
        return web.json_response(counts | {"batches": [], "failures": []})

    async def _bind(self, request: web.Request) -> web.Response:
        body = await request.json()
        namespace, fleet = request.match_info["namespace"], request.match_info["name"]
        rollout = self.get("rollouts", body["rollout"], namespace)
        if rollout is None:
            return _status(404, "NotFound", "no rollout")
        control = rollout["spec"].get("control") or {}
        if control.get("paused") or control.get("aborted"):
            return _status(409, "Conflict", "the rollout is paused or aborted")
        devices = self.devices.setdefault(fleet, Devices())
        taken = devices.bind(body["limit"])
        self.tell_backlog()
        return web.json_response({"bound": taken, "rendered": taken, "remaining": devices.unbound})


def _key(request: web.Request) -> Key:
    info = request.match_info
    return info["plural"], info["namespace"], info["name"]


def _bare(document: Json) -> Json:
    kept = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
    return {**document, "metadata": kept}


def _at(document: Json, path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _merged(old: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code}
    return web.json_response(body | {"reason": reason, "message": message}, status=code)


def _fixed(document: Json) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document)

    return answer


def _group(api: str) -> Json:
    name, version = api.split("/")
    entry = {"groupVersion": api, "version": version}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _resource(plural: str, kind: str, *, namespaced: bool = True) -> Json:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    names = {"name": plural, "singularName": kind.lower(), "kind": kind}
    return names | {"namespaced": namespaced, "verbs": verbs}


def _resources(api: str) -> list[Json]:
    result = []
    for plural, (of, kind) in KINDS.items():
        if of == api:
            result.append(_resource(plural, kind))
            result.append({**_resource(plural, kind), "name": f"{plural}/status"})
    return result
