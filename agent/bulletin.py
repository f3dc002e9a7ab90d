"""What the running agent leaves for whoever looks at the device: one file below /run.

A person at the device has no network, and must not have to ask a process that may hang. So the
agent writes down what it would tell the service, and how it gets on with it, whenever that changes;
`homeport-agent status` and `doctor` read it. Being below /run, it is gone after a reboot. It is as
old as it says it is: a reader looks at the unit too, before it believes that the agent lives.
"""

from __future__ import annotations

import json
import logging
import posixpath
import threading
from datetime import datetime, timedelta
from typing import Any

from agent import world
from resources import timestamps

log = logging.getLogger("agent.bulletin")

Json = dict[str, Any]

PATH = "/run/flightctl-agent/status.json"
ENROLLING, ASKING, CONNECTED, FAILING = "enrolling", "asking", "connected", "failing"


class Bulletin:
    """`heard` and `tell` are called by the reporter, the rest by the contact thread."""

    def __init__(self, where: world.World, about: Json, path: str = PATH) -> None:
        self._world = where
        self._path = path
        self._lock = threading.Lock()
        self._about = {"startedAt": timestamps.of(where.now()), "pid": where.pid(), **about}
        self._contact: Json = {"state": ENROLLING}
        self._told: Json = {}
        self._is_well = True

    def asking(self) -> None:
        """It is enrolled, and a poll is under way, which the service may hold for minutes."""
        self._set(state=ASKING)

    def heard(self) -> None:
        """The service has taken a report: it is there, whatever becomes of the poll."""
        self._set(state=CONNECTED, lastAnswerAt=timestamps.of(self._world.now()), why="")

    def answered(self, next_s: float) -> None:
        """The service has answered a poll; the next one begins in `next_s`."""
        now = self._world.now()
        self._set(
            state=CONNECTED, lastAnswerAt=timestamps.of(now), why="", nextAt=_after(now, next_s)
        )

    def failed(self, why: str, next_s: float) -> None:
        """It has not."""
        self._set(state=FAILING, why=why, nextAt=_after(self._world.now(), next_s))

    def waiting(self, why: str, next_s: float) -> None:
        """This device is not enrolled yet, or not any more."""
        self._set(state=ENROLLING, why=why, nextAt=_after(self._world.now(), next_s))

    def tell(self, status: Json, facts: Json) -> None:
        """`status` is what the service is told; `facts` are those that change by themselves."""
        with self._lock:
            document = {**self._about, **facts, "contact": dict(self._contact), "status": status}
        if document == self._told:
            return
        written = {"at": timestamps.of(self._world.now()), **document}
        try:
            self._world.mkdir(posixpath.dirname(self._path), mode=0o700)
            self._world.write(self._path, json.dumps(written).encode(), mode=0o600, uid=0, gid=0)
        except OSError as error:
            if self._is_well:
                log.warning("bulletin not written path=%s: %s", self._path, error)
            self._is_well = False
            return
        self._is_well, self._told = True, document

    def _set(self, **fields: str) -> None:
        with self._lock:
            self._contact = {**self._contact, **fields}


def read(where: world.World, path: str = PATH) -> Json:
    """Empty where there is none that can be read."""
    try:
        document = json.loads(where.read(path) or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _after(now: datetime, seconds: float) -> str:
    return timestamps.of(now + timedelta(seconds=seconds))
