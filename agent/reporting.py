"""Tells the service how this device is; a thread of its own, so that nothing slow silences it.

The whole status goes out when it differs from what the service last took: at once (a burst of
changes within 200 ms is one report), and looked at again every `status-update-interval`, when the
collectors are asked anew; resources are measured at the intervals of their monitors. There is no
queue: what is sent is what is true at that moment, and after a failure the next attempt sends the
newer truth.

Each section is on its own: a collector that fails keeps its last value, or the neutral one that the
contract requires, is named in the log, and shows in the summary. Sections of the loop come
from the mailbox as they are.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from agent import (
    collectors,
    config,
    errors,
    identity,
    monitors,
    pace,
    routes,
    transport,
    units,
    world,
)
from agent.files import digest_of
from resources import timestamps

log = logging.getLogger("agent.reporting")

Json = dict[str, Any]

RETRY_S = 2.0
RETRY_S_MAX = 60.0
JITTER = 0.2
# A waiting thread looks up this often to see whether the agent stops.
NAP_S = 3.0
INFO_CHARS_MAX = errors.MESSAGE_CHARS_MAX

ONLINE, DEGRADED = "Online", "Degraded"
# Worse is higher; what a device does about itself (PoweredOff, Rebooting) stands above a warning.
SEVERITY = {"Unknown": 0, ONLINE: 1, DEGRADED: 2, "Rebooting": 3, "PoweredOff": 4, "Error": 5}


class Sections(Protocol):
    """The part of `Mailbox` that the loop leaves its status in."""

    def status(self) -> Mapping[str, Any]: ...

    def wait_for_status_change(self, timeout_s: float) -> bool: ...

    def is_push_awaited(self) -> bool: ...

    def pushed(self, status: Mapping[str, Any]) -> None: ...


def neutral(now: datetime) -> Json:
    """A status with every member that the contract requires, and nothing claimed."""
    return {
        "conditions": [
            {
                "type": "Updating",
                "status": "Unknown",
                "reason": "",
                "message": "",
                "lastTransitionTime": timestamps.of(now),
            }
        ],
        "systemInfo": {
            "architecture": "",
            "bootID": "",
            "operatingSystem": collectors.OPERATING_SYSTEM,
            "agentVersion": "",
        },
        "systemd": [],
        "applications": [],
        "applicationsSummary": {"status": "Unknown"},
        "resources": dict.fromkeys(monitors.RESOURCES, monitors.UNKNOWN),
        "integrity": {"status": "Unknown"},
        "config": {"renderedVersion": ""},
        "os": {"image": "", "imageDigest": ""},
        "updated": {"status": "Unknown"},
        "summary": {"status": "Unknown"},
        "lifecycle": {"status": "Unknown"},
    }


def composed(base: Json, *layers: Mapping[str, Any]) -> Json:
    """Later layers win by section; summaries are merged, the worst one speaks."""
    status = dict(base)
    summaries: list[Json] = []
    for layer in layers:
        for name, section in layer.items():
            if name == "summary":
                summaries.append(section)
            elif section is not None:
                status[name] = section
    status["summary"] = worst(summaries)
    return status


def worst(summaries: list[Json]) -> Json:
    """The most severe; all that are equally severe may say why."""
    top = max((SEVERITY.get(s.get("status", ""), 0) for s in summaries), default=0)
    chosen = [s for s in summaries if SEVERITY.get(s.get("status", ""), 0) == top]
    if not chosen:
        return {"status": "Unknown"}
    info = "; ".join(dict.fromkeys(s["info"] for s in chosen if s.get("info")))
    result: Json = {"status": chosen[0].get("status", "Unknown")}
    if info:
        result["info"] = errors.shortened(info, INFO_CHARS_MAX)
    return result


class Facts:
    """The sections that are measured here rather than decided by the loop."""

    def __init__(
        self,
        where: world.World,
        data_dir: str,
        system_info: collectors.SystemInfo,
        resources: monitors.Monitors,
        *,
        is_image_mode: bool,
    ) -> None:
        self._world = where
        self._data_dir = data_dir
        self._system_info = system_info
        self._resources = resources
        self._os_mode = "image" if is_image_mode else "package"
        self._known: Json = {}
        self._broken: set[str] = set()
        # The enrolment request and the periodic look may ask at the same time.
        self._lock = threading.Lock()
        self._spec: Json = {}
        self._spec_digest = ""
        self.warnings: tuple[str, ...] = ()

    @property
    def sample_at(self) -> float:
        """When resources are to be measured next."""
        return self._resources.due_at

    def refresh(self) -> Json:
        """All sections anew; each that cannot be had stays as it was."""
        with self._lock:
            self._read_spec()
            self._section("systemInfo", self._system_info.collect)
            self._section(
                "systemd", lambda: units.collect(self._world, units.patterns_of(self._spec))
            )
            self._known["capabilities"] = {"osMode": self._os_mode}
            return self._sampled()

    def resample(self) -> Json:
        """Resources anew, the rest as it was."""
        with self._lock:
            return self._sampled()

    def _sampled(self) -> Json:
        at_s = self._world.monotonic()
        self._section("resources", lambda: self._resources.sample(at_s=at_s))
        self._known["summary"] = self._summary()
        return dict(self._known)

    def _section(self, name: str, collect: Callable[[], Any]) -> None:
        try:
            self._known[name] = collect()
            self._broken.discard(name)
        except Exception as error:  # any collector, any trouble: the device must go on reporting
            self._broken.add(name)
            log.warning("section not collected section=%s: %s", name, error)

    def _summary(self) -> Json:
        status, info = monitors.summarised(self._known.get("resources", {}))
        broken = (f"{name} cannot be collected" for name in sorted(self._broken))
        complaints = [*self.warnings, *broken]
        parts = [{"status": status, "info": info}]
        if complaints:
            parts.append({"status": DEGRADED, "info": "; ".join(complaints)})
        return worst(parts)

    def _read_spec(self) -> None:
        """The committed specification, from the file that both agents keep. It carries every file
        of the device, so it is parsed only when it has changed, and not kept as a whole."""
        try:
            raw = self._world.read(f"{self._data_dir}/current.json") or b"{}"
            if (digest := digest_of(raw)) == self._spec_digest:
                return
            document = json.loads(raw)
        except (OSError, ValueError):
            # For the loop to say, and to mend; until then what was asked last is asked.
            return
        spec = document.get("spec") if isinstance(document, dict) else None
        found = spec if isinstance(spec, dict) else {}
        self._spec_digest = digest
        self._spec = {name: found[name] for name in ("systemd", "resources") if name in found}
        self._resources.follow(self._spec)


class Reporting:
    def __init__(
        self,
        where: world.World,
        settings: config.Settings,
        who: identity.Identity,
        sections: Sections,
        facts: Facts,
        *,
        nap_s: float = NAP_S,
    ) -> None:
        self._world = where
        self._nap_s = nap_s
        self.configure(settings)
        self._identity = who
        self._sections = sections
        self._facts = facts
        self._base = neutral(where.now())
        self._measured: Json = {}
        self._pushed: Json | None = None
        self._is_wanted = False
        self._failures = 0
        self._is_stale = True
        # When it looked last; for who looks whether it hangs.
        self.looked_at = where.monotonic()
        # What is told is decided and told by one thread at a time.
        self._telling = threading.Lock()
        self.client = who.caller()
        # Called with the status at every look, whether the service can be told or not.
        self.on_look: Callable[[Json], None] = lambda status: None
        # The service has taken it.
        self.on_told: Callable[[], None] = lambda: None

    def configure(self, settings: config.Settings) -> None:
        """From any thread, from the next look on."""
        self._interval_s = settings.status_interval_s
        self._jitter_s = settings.status_jitter_s
        self._pace = pace.of(settings)

    def status(self) -> Json:
        """The complete status, measured now; for the enrolment request too."""
        return composed(self._base, self._facts.refresh(), self._sections.status())

    def forget(self) -> None:
        """The service wants all of it again, changed or not."""
        self._is_wanted = True

    def refresh_soon(self) -> None:
        """Something that is measured has changed: certificate, settings."""
        self._is_stale = True

    def run(self, is_stopping: Callable[[], bool], pause: Callable[[float], bool]) -> None:
        """Until `is_stopping`. The jitter spreads the periodic looks; news never waits for it."""
        due_at = self._world.monotonic() + self._world.random() * self._jitter_s
        gathered_at = retry_at = 0.0
        committed: Any = None
        while not is_stopping():
            now = self.looked_at = self._world.monotonic()
            config_now = self._sections.status().get("config")
            if self._is_stale or now >= due_at or config_now != committed:
                # What is measured depends on the specification.
                self._is_stale, committed = False, config_now
                self._measured = self._facts.refresh()
                due_at = now + self._interval_s
            elif now >= self._facts.sample_at:
                self._measured = self._facts.resample()
            self.on_look(composed(self._base, self._measured, self._sections.status()))
            tell_at = retry_at if self._sections.is_push_awaited() else max(gathered_at, retry_at)
            if now >= tell_at:
                retry_at = self._push(self.client)
            self.client.close_idle()
            moments = (
                moment
                for moment in (due_at, self._facts.sample_at, tell_at, retry_at)
                if moment > now
            )
            wait_s = min((self._nap_s, *(moment - now for moment in moments)))
            if self._sections.wait_for_status_change(wait_s):
                if pause(pace.GATHER_S):
                    return
                if gathered_at <= now:
                    gathered_at = now + self._pace.gather_s

    def tell_by(self, client: routes.Caller) -> None:
        """From another thread that has a connection: all that has changed, measured now."""
        self._measured = self._facts.refresh()
        self._push(client, is_cheap=True)

    def _push(self, client: routes.Caller, *, is_cheap: bool = False) -> float:
        """Sends what has changed; not before when to do so again."""
        if not self._identity.is_enrolled or not self._telling.acquire(blocking=False):
            # Another thread is at it; what it leaves out is seen at the next look.
            return 0.0
        try:
            return self._pushed_by(client, is_cheap=is_cheap)
        finally:
            self._telling.release()

    def _pushed_by(self, client: routes.Caller, *, is_cheap: bool) -> float:
        # NB race: taken before the status is composed, so a wish that comes meanwhile is kept.
        is_wanted, self._is_wanted = self._is_wanted, False
        status = composed(self._base, self._measured, self._sections.status())
        if not is_wanted and not self._is_telling(status, is_cheap=is_cheap):
            return 0.0
        document = {
            "apiVersion": transport.API_VERSION,
            "kind": "Device",
            "metadata": {"name": self._identity.name},
            "status": status,
        }
        path = f"/devices/{quote(self._identity.name, safe='')}/status"
        try:
            client.request("PUT", path, body=document)
        except transport.ServiceError as error:
            self._is_wanted = self._is_wanted or is_wanted
            return self._later(error)
        self._failures = 0
        self._pushed = status
        self._sections.pushed(status)
        self.on_told()
        return 0.0

    def _is_telling(self, status: Json, *, is_cheap: bool) -> bool:
        told = self._pushed
        if told is None or status == told:
            return told is None
        return is_cheap or self._sections.is_push_awaited() or self._pace.is_news(status, told)

    def _later(self, error: transport.ServiceError) -> float:
        if not self._failures:
            log.warning("status not reported: %s", error)
        self._failures += 1
        delay_s = min(RETRY_S * 2.0 ** min(self._failures - 1, 10), RETRY_S_MAX)
        delay_s *= 1 + JITTER * (2 * self._world.random() - 1)
        if isinstance(error, transport.Throttled):
            delay_s = max(delay_s, error.after_s)
        return self._world.monotonic() + delay_s
