"""[simulated] A device of the mind with a service that says what it should be; and the checks.

`expected` computes from a document, independently of the agent, how the disk and the containers
must look. `Device.run` lives until nothing moves any more and checks at every pass that what the
status claims is true.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from agent import loop, podman, settings, specs, states, world
from agent.mailbox import Mailbox
from tests.fakes.sim_world import SimWorld

Json = dict[str, Any]
Picture = tuple[Any, ...]

DATA = "/var/lib/flightctl"
PASSES_MAX = 4000
TIMES = settings.LoopSettings(farewell_s=0.0, notice_s=0.0)


def document(version: int, files: list[Json], applications: list[Json], **spec: Any) -> Json:
    return {
        "apiVersion": "v1beta1",
        "kind": "Device",
        "metadata": {
            "name": "d1",
            "annotations": {
                "device-controller/renderedVersion": str(version),
                "device-controller/renderedSpecHash": f"hash-{version}",
            },
        },
        "spec": {
            "config": [{"name": "", "inline": files}],
            "applications": applications,
            "consoles": [],
            **spec,
        },
    }


def file(path: str, content: str, **fields: Any) -> Json:
    return {
        "path": path,
        "content": base64.b64encode(content.encode()).decode(),
        "contentEncoding": "base64",
        "mode": 420,
        "user": "root",
        **fields,
    }


def application(name: str, image: str, **fields: Any) -> Json:
    return {"name": name, "appType": "container", "image": image, "runAs": "", **fields}


class Device:
    """One machine through all lives of its agent."""

    def __init__(self, where: SimWorld, *, times: settings.LoopSettings = TIMES) -> None:
        self.world = where
        self.times = times
        self.latest: Json | None = None
        self.known: dict[str, Json] = {"0": specs.empty()}
        self.originals: dict[str, Any] = {}
        self.reachable: Any = lambda: True
        self.claims: list[tuple[str, str]] = []
        self.mailbox = Mailbox()
        self.loop: loop.Reconciler | None = None
        self.lives = 0
        # Set by tests in which somebody else changes the device: then a claim may be outdated.
        self.is_tampered = False
        # Set where the way back may have to be given up for a while: then it is told what is amiss.
        self.goes_back_later = False
        # The digest of the system that a version should run on, where that is looked at.
        self.systems: dict[str, str] = {}

    def offer(self, device: Json) -> None:
        self.latest = device
        self.known[specs.target_of(device).version] = device

    def start(self) -> loop.Reconciler:
        self.lives += 1
        self.mailbox = Mailbox()
        self.loop = loop.Reconciler(self.world, self.times, self.mailbox, lambda: self.reachable())
        return self.loop

    def run(self, *, passes: int = PASSES_MAX, settle_s: float = 0.0) -> None:
        """Until nothing moves. Raises Crash as the world says so."""
        agent = self.start()
        for _ in range(passes):
            self._poll()
            rest_s = agent.run_once()
            self._check_claims()
            if self.world.is_going_down:
                self.world.restart()
                agent = self.start()
                continue
            if rest_s and self._is_done(agent):
                if settle_s <= 0:
                    return
                settle_s -= rest_s
            self.world.sleep(rest_s)
        raise AssertionError(f"does not come to rest: {agent.state}")

    def run_through_crashes(self, *, power: bool) -> int:
        """As `run`, with a restart after each crash; how many there were."""
        return self.world.through_crashes(self.run, power=power)

    def _poll(self) -> None:
        if self.latest is None:
            return
        if self.mailbox.known_version() != specs.target_of(self.latest).version:
            self.mailbox.offer_spec(self.latest)
            self.world.is_woken = False

    def _is_done(self, agent: loop.Reconciler) -> bool:
        if self.latest is None:
            return True
        if not isinstance(agent.state, states.Idle | states.Refused):
            return False
        heard = specs.number(self.mailbox.known_version())
        return heard >= specs.number(specs.target_of(self.latest).version)

    # What is claimed, and what is.

    def check_committed(self, version: str) -> None:
        """Before the commit is on the disk nobody may be told of it."""
        node = self.world.nodes.get(f"{DATA}/current.json")
        if version in ("", specs.NOTHING) or node is None or self.is_tampered:
            return
        committed = specs.target_of(json.loads(node.data)).version
        assert specs.number(version) <= specs.number(committed), "told, not committed"

    def condition(self) -> Json:
        found = self.mailbox.status().get("conditions", [])
        return next((c for c in found if c["type"] == "Updating"), {})

    def version(self) -> str:
        return str(self.mailbox.status().get("config", {}).get("renderedVersion", ""))

    def _check_claims(self) -> None:
        """An update that is over, well or not, has left the device whole on what it names."""
        condition = self.condition()
        self.check_committed(self.version())
        if self.is_tampered:
            return
        claim = (condition.get("reason", ""), self.version())
        if claim[0] not in ("Updated", "Error") or (self.claims and self.claims[-1] == claim):
            self.claims.append(claim)
            return
        self.claims.append(claim)
        self.check_whole(claim[1], condition, self.mailbox.status().get("summary", {}))
        if claim[0] == "Updated":
            assert condition["message"].endswith(f": {claim[1]}")

    def check_whole(self, version: str, condition: Json, summary: Json) -> None:
        """As `version` says; or on the way back from a failure, and it says that something is."""
        is_amiss = bool(summary.get("info")) and summary["status"] != "Online"
        if self.goes_back_later and condition["reason"] == "Error" and is_amiss:
            return
        assert self.picture() == self.expected(version), f"on {version}: {condition}, {summary}"

    def paths(self) -> list[str]:
        found = {f["path"] for d in self.known.values() for f in _files(d)}
        return sorted(found | set(self.originals))

    def picture(self, *, running: bool = False) -> Picture:
        files = []
        for path in self.paths():
            node = self.world.nodes.get(path)
            files.append((path, node and (node.kind, node.data, node.mode, node.uid, node.gid)))
        boxes = sorted(
            (b.name, b.image, b.env, b.status if running else "")
            for b in self.world.podman.boxes.values()
        )
        system = self.world.system if self.systems else None
        digests = (system.booted.digest, system.next_boot()) if system is not None else ()
        return (tuple(files), tuple(boxes), digests)

    def expected(self, version: str, *, running: bool = False) -> Picture:
        device = self.known[version]
        wanted = {f["path"]: f for f in _files(device)}
        files = []
        for path in self.paths():
            if path in wanted:
                one = wanted[path]
                uid = self.world.uid_of(one["user"])
                gid = self.world.gid_of(one.get("group", "root"))
                data = base64.b64decode(one["content"])
                files.append((path, (world.FILE, data, one["mode"], uid, gid)))
            else:
                files.append((path, self.originals.get(path)))
        boxes = sorted(
            (
                f"{podman.app_id(app['name'])}-app",
                app["image"],
                tuple(f"{k}={v}" for k, v in sorted(app.get("envVars", {}).items())),
                "running" if running else "",
            )
            for app in device["spec"].get("applications", [])
        )
        digests = (self.systems[version],) * 2 if self.systems else ()
        return (tuple(files), tuple(boxes), digests)

    def put_original(self, path: str, node: Any) -> None:
        self.world.mkdir(path.rsplit("/", 1)[0] or "/")
        self.world.nodes[path] = node
        self.originals[path] = (node.kind, node.data, node.mode, node.uid, node.gid)

    def check_secrets(self) -> None:
        """Specifications, journal and originals are for root alone, at every moment."""
        for path, node in self.world.nodes.items():
            if path.startswith(f"{DATA}/") and path != f"{DATA}/certs":
                assert node.mode & 0o077 == 0, (path, oct(node.mode))
            if b"hunter2" in node.data and not path.startswith("/etc/"):
                assert node.mode == 0o600, path
                assert not path.endswith("journal.jsonl")


def _files(device: Json) -> list[Json]:
    providers = device["spec"].get("config") or [{}]
    found: list[Json] = providers[0].get("inline", [])
    return found
