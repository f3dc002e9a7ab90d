"""[simulated] A service and the network to it, in virtual time: certificates without cryptography.

A certificate is a line of JSON, signed by nobody, and whoever shows one is believed. What is kept
of the real thing: names that follow from keys, times of validity, mutual TLS that refuses an
expired certificate before anything is said, answers of the contract, long polls, a network that is
there or not, and connections that it takes away. How many there were of each is counted.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from agent import polling, transport
from tests.fakes.sim_world import START, Crash, SimWorld

Json = dict[str, Any]
Wait = Callable[[float, Callable[[], bool]], bool]

HOLD_S = 120.0
TRIP_S = 0.2
NO_ROUTE_S = 1.0
YEAR_S = 365 * 86400.0
ENROLMENT_CN = "client-enrollment"
CONNECTED = "connections"


def answer(question: Json) -> Json:
    """As `agent.keys`, in the place of its child process, about keys that are there."""
    match question["do"]:
        case "describe":
            return {"name": name_of(question["key"])}
        case "request":
            common = question.get("commonName") or name_of(question["key"])
            return {"csr": json.dumps({"key": question["key"], "commonName": common})}
    try:
        facts: Json = json.loads(question["certificate"])
        return {**facts, "fitsKey": facts["key"] == question["key"]}
    except (ValueError, KeyError, TypeError):
        return {"error": "not a certificate"}


def name_of(key: str) -> str:
    digest = hashlib.sha256(key.encode()).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower()


class SimService:
    """Facts are plain and may be changed by the test; `seen` counts what came and what it cost."""

    def __init__(self, world: SimWorld, first: Json | None = None) -> None:
        """`first` is what a device should be that has just been let in."""
        self.world = world
        self.first = first or _empty()
        self.requests: dict[str, Json] = {}
        self.signing: dict[str, Json] = {}
        self.devices: dict[str, Json] = {}
        self.statuses: list[tuple[float, Json]] = []
        self.seen: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.lifetime_s = YEAR_S
        self.approves = True
        self.serial = self.keys_made = 0
        self.refused: Callable[[Json], bool] = lambda certificate: False
        self.is_up: Callable[[float], bool] = lambda at_s: True
        # Called with each status at the moment when it is sent, whether it arrives or not.
        self.on_sent: Callable[[Json], None] = lambda status: None
        # Set by the life of the agent that is being lived.
        self.wait: Wait = lambda seconds, is_ready: False

    def twin(self, world: SimWorld) -> SimService:
        """The same service again, for another fate of its device."""
        other = SimService(world, self.first)
        other.requests = {name: dict(one) for name, one in self.requests.items()}
        other.signing, other.devices = dict(self.signing), dict(self.devices)
        other.statuses = list(self.statuses)
        other.lifetime_s, other.approves = self.lifetime_s, self.approves
        other.serial, other.keys_made = self.serial, self.keys_made
        return other

    def answer(self, question: Json) -> Json:
        """As `agent.keys`: no two keys are the same."""
        if question["do"] != "create":
            return answer(question)
        self.keys_made += 1
        return {"key": f"key-{self.keys_made}-of-the-device"}

    def now(self) -> float:
        return START.timestamp() + self.world.elapsed_s

    def is_reachable(self) -> bool:
        return self.is_up(self.world.elapsed_s)

    def connect(self, server: str, credentials: Callable[[], transport.Credentials]) -> SimClient:
        return SimClient(self, credentials)

    def offer(self, name: str, device: Json) -> None:
        self.devices[name] = {**device, "metadata": {**device["metadata"], "name": name}}

    def version_of(self, name: str) -> str:
        found = polling.annotations_of(self.devices.get(name, {}))
        return found.get(polling.RENDERED_VERSION, "")

    def handle(self, method: str, path: str, body: Any, common: str) -> tuple[int, Any]:
        words = path.strip("/").split("/")
        is_enrolment = common == ENROLMENT_CN
        match method, words:
            case "POST", ["enrollmentrequests"] if is_enrolment:
                return self._asked_in(body)
            case "GET", ["enrollmentrequests", name] if is_enrolment:
                return self._looked_at(name)
            case "PUT", ["devices", name, "status"] if name in self.devices:
                self.statuses.append((self.world.elapsed_s, body["status"]))
                return 200, body
            case "GET", ["devices", name, "rendered"] if name in self.devices:
                return 200, self.devices[name]
            case _, ["devices", name, _]:
                return 404, {"message": f"Device of name {name} not found"}
            case "POST", ["certificatesigningrequests"]:
                return 201, self._signed(body)
            case "GET", ["certificatesigningrequests", name] if name in self.signing:
                return 200, self.signing[name]
        return 404, {"message": "no such path"}

    def _asked_in(self, body: Json) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        # What has asked once asks under this name for ever: another key is another device.
        assert not self.requests or name in self.requests, "a second key asks to be let in"
        known = self.requests.get(name)
        if known is not None and not self._is_over(known):
            return 409, {"message": "it is there already"}
        self.requests[name] = {**body, "status": {"conditions": []}}
        return 201, self.requests[name]

    def _is_over(self, request: Json) -> bool:
        pem = request["status"].get("certificate")
        return bool(pem) and json.loads(pem)["notAfter"] <= self.now()

    def _looked_at(self, name: str) -> tuple[int, Any]:
        request = self.requests.get(name)
        if request is None:
            return 404, {"message": "no such request"}
        if self.approves and not request["status"].get("certificate"):
            csr = json.loads(request["spec"]["csr"])
            request["status"] = {
                "conditions": [{"type": "Approved", "status": "True"}],
                "certificate": self.certificate(csr, f"device:{name}"),
            }
            if name not in self.devices:
                self.offer(name, self.first)
        return 200, request

    def _signed(self, body: Json) -> Json:
        csr = json.loads(base64.b64decode(body["spec"]["request"]))
        pem = self.certificate(csr, csr["commonName"])
        status = {
            "conditions": [{"type": "Approved", "status": "True"}],
            "certificate": base64.b64encode(pem.encode()).decode(),
        }
        document: Json = {**body, "status": status}
        self.signing[body["metadata"]["name"]] = document
        return document

    def certificate(self, csr: Json, common: str) -> str:
        self.serial += 1
        facts = {
            "commonName": common,
            "serial": f"{self.serial:x}",
            "notBefore": self.now() - 60,
            "notAfter": self.now() + self.lifetime_s,
            "key": csr["key"],
        }
        return json.dumps(facts)


def _empty() -> Json:
    notes = {polling.RENDERED_VERSION: "1", "device-controller/renderedSpecHash": "hash-1"}
    return {
        "apiVersion": "v1beta1",
        "kind": "Device",
        "metadata": {"annotations": notes},
        "spec": {"config": [], "applications": [], "consoles": []},
    }


class SimClient:
    """In the place of `transport.Client`."""

    def __init__(
        self, service: SimService, credentials: Callable[[], transport.Credentials]
    ) -> None:
        self._service = service
        self._credentials = credentials
        self._shown: transport.Credentials | None = None
        self._used_at = 0.0
        self._is_aborted = False
        self.on_done: Callable[[str, str, float, bool], None] = lambda *done: None

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> transport.Answer:
        return self.request("GET", path, query=query, timeout_s=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
        want_body: bool = True,
    ) -> transport.Answer:
        service = self._service
        if method == "PUT":
            service.on_sent(body["status"])
        certificate = self._connected()
        self._arrive(timeout_s or transport.REQUEST_TIMEOUT_S)
        kind = "" if method == "GET" else service.world._effect(f"{method} {path[:24]}")
        if path.endswith("/rendered"):
            service.seen["polls"] += 1
            known = (query or {}).get("knownRenderedVersion", "")
            if known and not self._held(path.split("/")[2], known, timeout_s or 0.0):
                self._used_at = service.world.elapsed_s
                return transport.Answer(204)
        status, document = service.handle(method, path, body, certificate["commonName"])
        service.seen[f"{method} {status}"] += 1
        service.sizes[method] += len(json.dumps(document if method == "GET" else body))
        if kind:
            raise Crash
        self._arrive(timeout_s or transport.REQUEST_TIMEOUT_S)
        self._used_at = service.world.elapsed_s
        if not want_body:
            self.close()
        if status >= 300:
            message = str(document.get("message"))
            raise transport.Rejected(status, message, json.dumps(document))
        return transport.Answer(status, document)

    def _connected(self) -> Json:
        """The certificate that is shown, on a connection that is there or is made."""
        service = self._service
        if self._is_aborted:
            raise transport.Unreachable("the agent is stopping")
        wanted = self._credentials()
        if wanted != self._shown:
            self._shown = None
        self.close_idle()
        certificate: Json = json.loads(wanted.certificate)
        if self._shown is None:
            if not service.is_reachable():
                service.wait(NO_ROUTE_S, lambda: False)
                raise transport.Unreachable("no route to host")
            service.seen[CONNECTED] += 1
            service.wait(TRIP_S, lambda: False)
            is_over = certificate.get("notAfter", service.now() + 1) <= service.now()
            if is_over or service.refused(certificate):
                raise transport.Untrusted("the service refused the handshake: expired")
            self._shown = wanted
        return certificate

    def _arrive(self, timeout_s: float) -> None:
        """One way; what the network takes away is noticed when the time is over."""
        service = self._service
        service.wait(TRIP_S / 2, lambda: False)
        if not service.is_reachable():
            service.wait(timeout_s, lambda: False)
            self.close()
            raise transport.Unreachable("timed out")

    def _held(self, name: str, known: str, timeout_s: float) -> bool:
        """Whether there is something to tell before the service ends the long poll."""
        service = self._service

        def is_over() -> bool:
            return service.version_of(name) != known or not service.is_reachable()

        service.wait(HOLD_S, is_over)
        if not service.is_reachable():
            service.wait(timeout_s, lambda: False)
            self.close()
            raise transport.Unreachable("timed out")
        return service.version_of(name) != known

    def abort(self) -> None:
        self._is_aborted = True

    def close(self) -> None:
        self._shown = None

    def close_idle(self) -> None:
        if self._service.world.elapsed_s - self._used_at > transport.IDLE_S_MAX:
            self.close()
