"""Health: `livez` while the process runs, `readyz` while it can serve, `healthz` for old habits.

Open to everybody, for who asks here has no identity. Each check answers in time or counts as
failed; what failed is named, and why is in the log, since the reader may be anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from apiserver.kube.face import FACE, Face

CHECK_S_MAX = 2.0
log = structlog.get_logger()

Check = Callable[[Face], Awaitable[bool]]


async def _ping(face: Face) -> bool:
    return True


async def _store(face: Face) -> bool:
    await face.operations.store.read(lambda snapshot: snapshot.version)
    return True


async def _shutdown(face: Face) -> bool:
    return not face.draining.is_set()


LIVE: Mapping[str, Check] = {"ping": _ping}
READY: Mapping[str, Check] = {"ping": _ping, "store": _store, "shutdown": _shutdown}
ENDPOINTS: Mapping[str, Mapping[str, Check]] = {"livez": LIVE, "healthz": READY, "readyz": READY}


async def handle(request: web.Request) -> web.StreamResponse:
    """`/readyz`, `/readyz/store`, `?verbose`, `?exclude=store`."""
    endpoint = request.match_info["endpoint"]
    checks = ENDPOINTS[endpoint]
    single = request.match_info.get("check", "")
    if single:
        if single not in checks:
            raise web.HTTPNotFound
        checks = {single: checks[single]}
    excluded = set(request.query.getall("exclude", []))
    face = request.app[FACE]
    found = {
        name: await _holds(face, name, c) for name, c in checks.items() if name not in excluded
    }
    healthy = all(found.values())
    text = "ok"
    if not healthy or "verbose" in request.query:
        lines = [
            f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed'}" for name, ok in found.items()
        ]
        lines.append(f"{endpoint} check {'passed' if healthy else 'failed'}")
        text = "\n".join(lines) + "\n"
    return web.Response(text=text, status=200 if healthy else 500)


async def _holds(face: Face, name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            return await check(face)
    except Exception:  # whatever it is, the server is not ready; the log says it
        log.warning("health check failed", check=name, exc_info=True)
        return False
