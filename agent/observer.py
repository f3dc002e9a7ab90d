"""What is: files and containers as they are, compared by nobody yet. Changes nothing.

All that is observed comes from the disk and from podman at that moment, never from memory of what
was done. The one thing that neither of them knows is kept in `containers.json`: in which boot we
started a container, and which restarts were done, since podman forgets the first at a reboot and a
label cannot follow the second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from agent import errors, planner, podman, settings, specs, world
from agent.files import Files, error_of

log = logging.getLogger("agent.observer")

Json = dict[str, Any]

QUICK_S = 60.0
STARTS_MAX = 100


class Starts:
    """`containers.json`: container id -> boot in which we started it, restarts done."""

    def __init__(self, where: world.World, own_dir: str) -> None:
        self._world = where
        self._path = f"{own_dir}/containers.json"

    def read(self) -> dict[str, Json]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
        except ValueError:
            return {}
        if not isinstance(found, dict):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, dict)}

    def started(self, container: str, *, generation: int | None = None) -> None:
        """After it was started. A crash in between makes us start it again, which does no harm."""
        found = self.read()
        entry = {**found.pop(container, {}), "boot": self._world.boot_id()}
        if generation is not None:
            entry["generation"] = generation
        found[container] = entry
        kept = dict(list(found.items())[-STARTS_MAX:])
        data = json.dumps(kept, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)


class Observer:
    def __init__(
        self, where: world.World, bounds: settings.LoopSettings, files: Files, starts: Starts
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._files = files
        self._starts = starts
        self._seen: tuple[str, tuple[planner.Container, ...]] = ("", ())

    def wanted(self, spec: specs.Spec) -> planner.Wanted:
        """Raises Reject: an owner is unknown here."""
        if spec.objection is not None:
            raise spec.objection
        return planner.Wanted(
            tuple(self._files.wanted(one) for one in spec.files),
            # What another agent has left running and this one cannot is not touched.
            tuple(
                self._wanted_container(app)
                for app in spec.applications
                if podman.objection(app) is None
            ),
        )

    def observed(self, spec: specs.Spec) -> planner.Observed:
        """Raises Retry where the disk or podman does not answer."""
        states = {}
        for one in spec.files:
            try:
                state = self._files.state(one.path)
            except OSError as error:
                raise error_of(one.path, error) from error
            if state is not None:
                states[one.path] = state
        names = {podman.container_name(app) for app in spec.applications}
        try:
            containers = self.containers(names)
        except errors.Retry as error:
            if spec.applications:
                raise
            # A broken podman must not keep a device from files that may mend it.
            log.warning("containers not observed: %s", error)
            containers = ()
        return planner.Observed(states, self._files.managed(), containers)

    def containers(self, names: Collection[str] = ()) -> tuple[planner.Container, ...]:
        """Ours, by label, and what stands in the way of `names`. Raises Retry.

        The listing is cheap and tells whether anything moved; only then all is looked at again.
        """
        found = self._run(podman.list_argv())
        if found.status == world.NOT_STARTED:
            # No podman, no containers; whether one is needed is for `objection` to say.
            return ()
        if not found.ok:
            raise _no_answer(found)
        starts = self._starts.read()
        try:
            marks = podman.listed(found.stdout, names)
            key = json.dumps([marks, starts, self._world.boot_id()])
            if key == self._seen[0]:
                return self._seen[1]
            containers = self._inspected(list(marks), starts) if marks else ()
        except ValueError as error:
            raise _no_answer(found) from error
        self._seen = (key, containers)
        return containers

    def _inspected(self, ids: list[str], starts: dict[str, Json]) -> tuple[planner.Container, ...]:
        answer = self._run(podman.inspect_argv(ids))
        if not answer.ok and "no such" not in answer.stderr.lower():
            # NB an empty list here would read as "all containers are gone".
            raise _no_answer(answer)
        containers = podman.containers(
            answer.stdout,
            started={k: str(v.get("boot")) for k, v in starts.items()},
            boot_id=self._world.boot_id(),
        )
        return tuple(_with_restarts(one, starts) for one in containers)

    def missing(self, spec: specs.Spec) -> tuple[planner.PullImage, ...]:
        images = {app.image: app.name for app in spec.applications}
        return tuple(
            planner.PullImage(name, image)
            for image, name in images.items()
            if not self._run(podman.image_exists_argv(image)).ok
        )

    def objection(self, spec: specs.Spec) -> errors.Reject | None:
        """Why `spec` cannot be made true on this device, before anything is changed."""
        if spec.objection is not None:
            return spec.objection
        for one in spec.files:
            if found := self._files.objection(one):
                return found
        return self._against_applications(spec.applications)

    def enforces_limits(self, app: specs.Application) -> bool:
        return not podman.missing_controllers(app, self._world.cgroup_controllers())

    def unenforced(self, spec: specs.Spec) -> tuple[str, ...]:
        """Applications that run without the limits that they ask for."""
        return tuple(app.name for app in spec.applications if not self.enforces_limits(app))

    def _wanted_container(self, app: specs.Application) -> planner.WantedContainer:
        with_limits = self.enforces_limits(app)
        return planner.WantedContainer(
            app.name,
            podman.container_name(app),
            podman.app_id(app.name, app.run_as),
            podman.spec_digest(app, with_limits=with_limits),
            is_stopped=app.is_stopped,
            restart_generation=app.restart_generation,
        )

    def _against_applications(self, apps: tuple[specs.Application, ...]) -> errors.Reject | None:
        names: dict[str, str] = {}
        for app in apps:
            if found := podman.objection(app):
                return found
            other = names.setdefault(podman.container_name(app), app.name)
            if other != app.name:
                detail = f"its identifier is that of {other} too"
                return _reject(errors.INVALID_ARGUMENT, detail, app.name)
            lacking = podman.missing_controllers(app, self._world.cgroup_controllers())
            if lacking and self._bounds.limits == settings.REQUIRE:
                detail = f"this device cannot limit {' and '.join(lacking)}: no such cgroup"
                return _reject(errors.FAILED_PRECONDITION, detail, app.name)
        if apps and self._run(["podman", "--version"]).status == world.NOT_STARTED:
            detail = "podman is not installed on this device"
            return _reject(errors.FAILED_PRECONDITION, detail, apps[0].name)
        return None

    def _run(self, argv: list[str]) -> world.Completed:
        return self._world.run(argv, timeout_s=QUICK_S)


def _with_restarts(one: planner.Container, starts: dict[str, Json]) -> planner.Container:
    done = starts.get(one.container, {}).get("generation")
    if isinstance(done, int) and done > one.restart_generation:
        return replace(one, restart_generation=done)
    return one


def _no_answer(answer: world.Completed) -> errors.Retry:
    detail = f"podman: {podman.last_words(answer.words)}"
    return errors.Retry(errors.INTERNAL, detail, component=errors.APPLICATIONS)


def _reject(cause: str, detail: str, app: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)
