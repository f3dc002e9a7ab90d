"""Where a request comes from, as the audit tells it: the same on every face.

The address is of whoever connected: behind a balancer its own. Headers in which proxies write other
addresses are not read, for anybody can write them.
"""

from __future__ import annotations

from aiohttp import web

from apiserver.auditing import AGENT_MAX
from apiserver.auth.identity import Origin

# The id that the answer carries, once a face has chosen it.
REQUEST_ID: web.RequestKey[str] = web.RequestKey("REQUEST_ID", str)


def origin_of(request: web.Request) -> Origin:
    agent = request.headers.get("User-Agent", "")[:AGENT_MAX]
    printable = "".join(each if each.isprintable() else "?" for each in agent)
    return Origin(request.remote or "", printable, request.get(REQUEST_ID, ""))
