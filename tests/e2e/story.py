"""The story, told step by step to whoever listens, each step checked.

A step does what a person would do, with the tools a person has (`git`, `kubectl`, `homeport`), and
then waits until it can be *seen* on the devices that it came true: a page served, a file read, an
operating system booted. Late or wrong ends the story with an exception that says what was awaited
and how it was instead.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tests.e2e import lighthouses, osimages, processes, service
from tests.e2e.lighthouses import LAMP, Commit
from tests.e2e.site import Device, Site
from tests.fakes.git_worktree import WorkTree

Json = dict[str, Any]

NAMES = ("north", "east", "west")
LOG_QUIET = "conmon"
# What a device remembers of its specifications, and what came of the fleet's files and quadlets.
KEPT_ON_DEVICE = ("/var/lib/flightctl/*.json", "/etc/lighthouse/*", "/etc/containers/systemd/*/*")


class Listener(Protocol):
    """Who the story is told to."""

    def chapter(self, title: str) -> None: ...

    def say(self, text: str) -> None: ...

    def ran(self, command: str, output: str) -> None: ...

    def live(self, line: str) -> None: ...


class Story:
    def __init__(self, site: Site, listener: Listener) -> None:
        self.site = site
        self.tell = listener
        self._has_system = not site.why_simulated
        self._names: dict[str, str] = {}
        self._repository: WorkTree | None = None

    def run(self) -> None:
        self.service_up()
        self.devices_enrol()
        self.approve()
        self.a_fleet_from_git()
        self.one_commit_changes_everything()
        if self._has_system:
            self.a_system_whose_agent_does_not_start()
            self.a_system_that_cannot_reach_the_service()
        else:
            self.tell.chapter("[simulated] No operating system is updated: these are processes")
        self.tamper_while_the_service_is_dead()
        self.kill_an_agent_in_the_middle()
        self.an_application_falls_ill_late()
        self.one_device_goes_its_own_way()

    # Chapters. ------------------------------------------------------------------------------------

    def service_up(self) -> None:
        self.tell.chapter("The service starts")
        self.site.start_registry()
        self.tell.say(f"A container registry at {self.site.registry.host} holds the images.")
        if self._has_system:
            for version, layer in lighthouses.systems().items():
                osimages.push(self.site.registry, version, layer)
        ready = self.site.start_service()
        self.tell.ran(f"homeport up --data {self.site.service.data}", ready)

    def devices_enrol(self) -> None:
        self.tell.chapter("Three devices are switched on and ask to be let in")
        self.site.add_devices(*NAMES)
        self.tell.say(
            "Each made a key of its own, and asked with the enrolment certificate in its image."
        )
        processes.until(
            lambda: len(self._items("enrollmentrequests")) == len(NAMES),
            "three enrolment requests",
            timeout_s=60,
            state=lambda: self.site.devices[0].journal(),
        )
        for request in self._items("enrollmentrequests"):
            host = request["spec"]["deviceStatus"]["systemInfo"].get("hostname", "")
            self._names[request["metadata"]["name"]] = host
        self._kubectl("get", "enrollmentrequests")
        assert not self._items("devices"), "nobody approved, and yet there are devices"

    def approve(self) -> None:
        self.tell.chapter("A person approves them, and says where they stand")
        for name, host in sorted(self._names.items(), key=lambda pair: pair[1]):
            argv = ["approve", name[:12], "--label", "site=harbour"]
            if host in NAMES:
                argv += ["--label", f"lamp={host}"]
            self.tell.ran(f"homeport {' '.join(argv)}", self.site.service.homeport(*argv))
        self._until_devices(
            lambda device: device["status"]["summary"]["status"] == "Online",
            "each device reports with a certificate of its own",
            timeout_s=30,
        )

    def a_fleet_from_git(self) -> None:
        self.tell.chapter("A fleet is kept in Git: system, files, a container and a quadlet")
        server = self.site.start_git()
        self._repository = server.repository("lighthouses")
        self._push("The lighthouses of the harbour", lighthouses.FIRST)
        repository = self._document("Repository", server.https_spec("lighthouses"))
        sync = self._document(
            "ResourceSync",
            {"repository": "lighthouses", "targetRevision": "main", "path": "/fleets"},
        )
        seen: list[str] = []
        with self._watching("devices", seen):
            for document in (repository, sync):
                output = self.site.service.kubectl("apply", "-f", "-", stdin=json.dumps(document))
                self.tell.ran(f"kubectl apply -f {document['kind'].lower()}.yaml", output)
            self._until_it_is(lighthouses.FIRST, timeout_s=90)
            self._until_status("UpToDate", timeout_s=120)
            processes.until(
                lambda: sum("UpToDate" in line for line in seen) >= len(NAMES),
                "kubectl get --watch has shown it",
                timeout_s=20,
                state=lambda: seen,
            )
        self._kubectl("get", "repositories,resourcesyncs,fleets,devices")

    def one_commit_changes_everything(self) -> None:
        self.tell.chapter("One commit: operating system, files, quadlet and container")
        boots = [device.boots for device in self.site.devices]
        started = time.monotonic()
        self._push("Everything is new", lighthouses.NEXT)
        self._until_it_is(lighthouses.NEXT, timeout_s=180)
        self.tell.say(f"All three have all of it after {time.monotonic() - started:.0f} s.")
        self._until_status("UpToDate", timeout_s=120)
        rebooted = [device.boots for device in self.site.devices]
        if self._has_system:
            assert rebooted == [number + 1 for number in boots], "one update is one reboot"
            shown = "bootc status | grep ' image:.*/'"
            self.tell.ran(f"north# {shown}", self.site.devices[0].exec("sh", "-c", shown).out)
        self._kubectl("get", "devices,rollouts")

    def a_system_whose_agent_does_not_start(self) -> None:
        self.tell.chapter("A worse one: an operating system in which the agent does not start")
        self._push("A new system", lighthouses.DEAD_AGENT)
        self.tell.say(
            f"Each boots it {osimages.ATTEMPTS} times; then the boot loader takes the old one."
        )
        self._until_each_says("os:dead-agent", timeout_s=240)
        self._until_it_is(lighthouses.NEXT, timeout_s=60)

    def a_system_that_cannot_reach_the_service(self) -> None:
        self.tell.chapter("And one in which it starts, and cannot reach the service")
        self._push("A new firewall", lighthouses.CUT_OFF)
        self._until_each_says("no longer reaches the service", timeout_s=240)
        self._until_it_is(lighthouses.NEXT, timeout_s=60)
        self.tell.say("Nobody went there. System, files and applications are what they were.")

    def tamper_while_the_service_is_dead(self) -> None:
        self.tell.chapter("kill -9 of the service, and somebody tampers with a device meanwhile")
        device, other = self.site.devices[0], self.site.devices[1]
        self.site.service.kill()
        self.tell.say("The service is dead. Now on two devices:")
        container = device.podman("ps", "--quiet", check=True).out.split()[0]
        device.podman("rm", "--force", "--time", "0", container, check=True)
        other.write(LAMP, "interval = never\n")
        self.tell.ran(f"{device.name}# podman rm --force {container}", "")
        self.tell.ran(f"{other.name}# echo 'interval = never' > {LAMP}", "")
        assert not self._is_it(device, lighthouses.NEXT), (
            "a container is gone, and nobody misses it"
        )
        started = time.monotonic()
        self._until_it_is(lighthouses.NEXT, timeout_s=60)
        self.tell.say(
            f"Both repaired it by themselves within {time.monotonic() - started:.1f} s, "
            "without a service."
        )
        before = {d["metadata"]["uid"] for d in self._after_restart()}
        assert len(before) == len(NAMES), "a device was forgotten"

    def kill_an_agent_in_the_middle(self) -> None:
        self.tell.chapter("The right version at last, and kill -9 of an agent in the middle of it")
        device = self.site.devices[-1]
        self._push("What it should have been", lighthouses.BETTER)
        processes.until(
            lambda: device.read(LAMP) == lighthouses.BETTER.lamp,
            f"{device.name} has begun to apply",
            timeout_s=60,
            every_s=0.01,
        )
        device.kill_agent()
        caught = device.http(lighthouses.PORT).strip() or "nothing"
        self.tell.say(f"{device.name}: new files, agent dead, and its page is: {caught}.")
        device.start_agent()
        self._until_it_is(lighthouses.BETTER, timeout_s=90)
        self._until_status("UpToDate", timeout_s=120)
        resumed = [line for line in device.journal().splitlines() if "loop begins" in line][-1]
        self.tell.ran(f"{device.name}# journalctl -u flightctl-agent | grep 'loop begins'", resumed)
        assert "state=Idle" not in resumed, f"it was not in the middle of anything: {resumed}"
        self._kubectl(
            "wait", f"rollout/{self._newest_rollout()}", "--for=jsonpath={.status.phase}=Completed"
        )
        self._kubectl("get", "fleets,devices,rollouts")

    def an_application_falls_ill_late(self) -> None:
        self.tell.chapter("A bad commit: the container is healthy, and falls ill after 30 seconds")
        self.site.set({"application-stability": f"{lighthouses.STABILITY_S}s"})
        self.tell.say(
            "From now on an update counts as done when the applications have been well for "
            f"{lighthouses.STABILITY_S} s (application-stability)."
        )
        self._push("A new page", lighthouses.FALLS_ILL)
        self._until_each_says("health check failed", timeout_s=180)
        self._until_it_is(lighthouses.BETTER, timeout_s=60)
        self.tell.say("Container and files are what they were.")
        processes.until(
            lambda: self._rollout_phase("Failed"), "the rollout is failed", timeout_s=45
        )
        self._kubectl("get", "rollouts")
        self._push("Revert 'A new page'", lighthouses.BETTER)
        self._until_status("UpToDate", timeout_s=60)

    def one_device_goes_its_own_way(self) -> None:
        self.tell.chapter("One device fails alone, and leaves: the others do not notice")
        *others, device = self.site.devices
        name = next(uid for uid, host in self._uids().items() if host == device.name)
        before = self._picture(others)
        argv = ["apply", "-f", "-"]
        output = self.site.service.kubectl(*argv, stdin=self.site.adapt(lighthouses.EXPERIMENT))
        self.tell.ran("kubectl apply -f experiments.yaml", output)
        self._kubectl("label", "--overwrite", f"device/{name}", "site=laboratory")
        self._until_each_says("health check failed", timeout_s=120, of=(name,))
        self._until_it_is(lighthouses.BETTER, timeout_s=60)
        assert self._picture(others) == before, "a rollback on one device changed another"
        self._kubectl("delete", f"device/{name}")
        assert self._picture(others) == before, "the removal of one device changed another"
        self.tell.say(
            f"{device.name} went back by itself, and was removed. What is stored for the others, "
            "and what they have, is the same to the last byte."
        )
        self._kubectl("get", "devices")

    # What a person would type. --------------------------------------------------------------------

    def _push(self, message: str, commit: Commit) -> None:
        """One commit, from a person's working tree to the server."""
        assert self._repository is not None
        files = commit.files(has_system=self._has_system)
        files[lighthouses.FLEET] = self.site.adapt(files[lighthouses.FLEET])
        self._repository.write(files)
        shown = self._repository.git("diff", "--unified=0", "--no-prefix")
        changed = [
            line for line in shown.splitlines() if line[:1] in "+-" and not line.startswith("---")
        ]
        self._repository.push()
        self.tell.ran(f"git commit -am '{message}' && git push", "\n".join(changed))

    def _document(self, kind: str, spec: Json) -> Json:
        metadata = {"name": "lighthouses"}
        return {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": kind,
            "metadata": metadata,
            "spec": spec,
        }

    def _kubectl(self, *argv: str) -> None:
        self.tell.ran(f"kubectl {' '.join(argv)}", self.site.service.kubectl(*argv))

    def _watching(self, kind: str, seen: list[str]) -> _Watch:
        def line(text: str) -> None:
            seen.append(text)
            self.tell.live(text)

        self.tell.say(f"$ kubectl get {kind} --watch")
        argv = [service.kubectl(), "get", kind, "--watch"]
        return _Watch(argv, self.site.service.environment(), line)

    # What must come true. -------------------------------------------------------------------------

    def _is_it(self, device: Device, commit: Commit) -> bool:
        return commit.is_on(device, has_system=self._has_system)

    def _until_it_is(self, commit: Commit, *, timeout_s: float) -> None:
        processes.until(
            lambda: all(self._is_it(device, commit) for device in self.site.devices),
            f"every device is as {commit} says",
            timeout_s=timeout_s,
            every_s=0.5,
            state=self._how_it_is,
        )

    def _until_each_says(self, words: str, *, timeout_s: float, of: Sequence[str] = ()) -> None:
        """Each device, or each of `of`, says that its update failed, with these words."""

        def says(device: Json) -> bool:
            updating = _condition(device, "Updating")
            return updating.get("reason") == "Error" and words in updating.get("message", "")

        def are_there() -> list[Json]:
            found = [d for d in self._items("devices") if not of or d["metadata"]["name"] in of]
            return found if all(says(device) for device in found) else []

        what = f"each device says {words!r}"
        found = processes.until(
            are_there, what, timeout_s=timeout_s, every_s=0.5, state=self._how_it_is
        )
        for device in found:
            name = device["metadata"]["name"]
            shown = self.site.service.kubectl("describe", "device", name)
            said = [line.strip() for line in shown.splitlines() if words in line]
            assert said, shown
            self.tell.ran(f"kubectl describe device {name[:12]}... | grep Message", said[0])

    def _picture(self, devices: Sequence[Device]) -> str:
        """What is stored for devices, and what they have."""
        uids = {host: uid for uid, host in self._uids().items()}
        parts = []
        for device in devices:
            stored = self.site.service.get("device", uids[device.name])
            metadata = stored["metadata"]
            parts.append(json.dumps([stored["spec"], metadata["labels"], metadata["annotations"]]))
            script = f"sha256sum {' '.join(KEPT_ON_DEVICE)} 2>/dev/null || true"
            parts.append(device.exec("sh", "-c", script).out if self._has_system else "")
            parts.append(device.podman("ps", "--no-trunc", "--format", "{{.ID}} {{.Image}}").out)
        return "\n".join(parts)

    def _uids(self) -> dict[str, str]:
        """Names of the devices, and what they call themselves."""
        return {
            d["metadata"]["name"]: d["metadata"]["labels"].get("lamp", "")
            for d in self._items("devices")
        }

    def _until_status(self, updated: str, *, timeout_s: float) -> None:
        self._until_devices(
            lambda device: (
                device["status"]["updated"]["status"] == updated
                and device["status"]["applicationsSummary"]["status"] == "Healthy"
            ),
            f"the service knows every device as {updated} and healthy",
            timeout_s=timeout_s,
        )

    def _until_devices(self, claim: Callable[[Json], bool], what: str, *, timeout_s: float) -> None:
        def all_of_them() -> bool:
            found = self._items("devices")
            return len(found) == len(NAMES) and all(claim(device) for device in found)

        processes.until(all_of_them, what, timeout_s=timeout_s, every_s=0.5, state=self._how_it_is)

    def _after_restart(self) -> list[Json]:
        self.tell.ran("homeport up   # again", self.site.service.start())
        return self._items("devices")

    def _rollout_phase(self, phase: str) -> str:
        """The newest rollout's phase, if it is this one."""
        found = self._rollouts()
        now = (found[-1].get("status") or {}).get("phase", "") if found else ""
        return now if now == phase else ""

    def _newest_rollout(self) -> str:
        name: str = self._rollouts()[-1]["metadata"]["name"]
        return name

    def _rollouts(self) -> list[Json]:
        return sorted(
            self._items("rollouts"), key=lambda each: int(each["metadata"]["resourceVersion"])
        )

    def _items(self, kind: str) -> list[Json]:
        found: list[Json] = self.site.service.get(kind)["items"]
        return found

    def _how_it_is(self) -> str:
        parts = [
            f"{d.name}: {d.read('/usr/lib/os-version')!r} {d.read(LAMP)!r} "
            f"{d.http(lighthouses.PORT)!r} {d.http(lighthouses.HORN_PORT)!r}"
            for d in self.site.devices
        ]
        for device in self.site.devices:
            own = [line for line in device.journal().splitlines() if LOG_QUIET not in line]
            parts += [f"--- {device.name}", *own[-12:]]
        parts += ["--- service", processes.tail(self.site.service.log, 12)]
        return "\n".join(parts)


class _Watch:
    """A command whose lines are passed on while the block lasts."""

    def __init__(
        self, argv: list[str], env: dict[str, str], on_line: Callable[[str], None]
    ) -> None:
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
        self._on_line = on_line
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._on_line(line.rstrip("\n"))


def _condition(document: Json, kind: str) -> Json:
    found: list[Json] = document["status"].get("conditions") or []
    return next((each for each in found if each["type"] == kind), {})
