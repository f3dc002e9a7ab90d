"""What is: files and containers as they are, compared by nobody yet. Changes nothing.

All that is observed comes from the disk and from podman at that moment, never from memory of what
was done. The one thing that neither of them knows is kept in `containers.json`: in which boot we
started a container, and which restarts were done, since podman forgets the first at a reboot and a
label cannot follow the second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from typing import Any

from agent import appplan, errors, helm, planner, podman, quadlet, settings, specs, world
from agent.accounts import Accounts
from agent.applications import Applications
from agent.bundles import Bundles
from agent.files import Files
from agent.helmapps import HelmApps
from agent.images import Stores
from agent.pulse import Pulse
from resources.records import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Content:
    """Where the content of applications is looked up."""

    stores: Stores
    bundles: Bundles
    applications: Applications
    charts: HelmApps
    pulse: Pulse


class Observer:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        files: Files,
        starts: Starts,
        content: Content,
        accounts: Accounts,
    ) -> None:
        self._world = where
        self._accounts = accounts
        self._bounds = bounds
        self._files = files
        self._starts = starts
        self._stores = content.stores
        self._bundles = content.bundles
        self._applications = content.applications
        self._charts = content.charts
        self._pulse = content.pulse
        # User -> what the listing said, and what it stood for.
        self._seen: dict[str, tuple[str, tuple[planner.Container, ...]]] = {}

    def wanted(self, spec: specs.Spec) -> planner.Wanted:
        """Raises Reject: an owner is unknown here."""
        if spec.objection is not None:
            raise spec.objection
        # What another agent has left running and this one cannot is not touched.
        apps = [app for app in spec.applications if podman.objection(app) is None]
        return planner.Wanted(
            tuple(self._files.wanted(one) for one in spec.files),
            tuple(self._wanted_container(a) for a in apps if not self._applications.kind_of(a)),
            apps=tuple(self._applications.wanted(a) for a in apps if self._applications.kind_of(a)),
        )

    def observed(
        self, spec: specs.Spec, wanted: planner.Wanted, *, closely: bool = True
    ) -> planner.Observed:
        """Unless `closely`, what cannot have moved is as it was (`pulse`). Raises Retry where the
        disk, podman or systemd does not answer."""
        self._pulse.look(closely=closely)
        states = self._files.states(one.path for one in spec.files)
        names = {podman.container_name(app) for app in spec.applications}
        try:
            containers = self.containers(names)
            users = self._applications.users(wanted.apps)
            by_user = {"": containers, **{user: self.containers(user=user) for user in users}}
            apps = self._applications.found(wanted.apps, by_user)
        except errors.Retry as error:
            if spec.applications:
                raise
            # A broken podman must not keep a device from files that may mend it.
            log.warning("containers not observed: %s", error)
            containers, apps = (), ()
        ours, given_back = self._files.recorded()
        return planner.Observed(
            states,
            ours,
            containers,
            apps=apps,
            volumes=self._bundles.stamps(),
            given_back=given_back,
        )

    def containers(
        self, names: Collection[str] = (), *, user: str = ""
    ) -> tuple[planner.Container, ...]:
        """Ours, by label, and what stands in the way of `names`. Raises Retry.

        The listing is cheap and tells whether anything moved; only then all is looked at again.
        """
        if user and self._accounts.of(user) is None:
            return ()
        found = self._pulse.ask(podman.list_argv(), user)
        if found.status == world.NOT_STARTED:
            # No podman, no containers; whether one is needed is for `objection` to say.
            return ()
        if not found.ok:
            raise _no_answer(found)
        starts = self._starts.read()
        try:
            marks = podman.listed(found.stdout, names)
            pins = self._stores.of(user).pins()
            identities = {ref: pin.identity for ref, pin in pins.items()}
            key = json.dumps([marks, starts, identities, self._world.boot_id()])
            if user not in self._seen or key != self._seen[user][0]:
                containers = self._inspected(list(marks), starts, user) if marks else ()
                containers = tuple(_compared(one, identities) for one in containers)
                self._seen[user] = (key, containers)
        except ValueError as error:
            raise _no_answer(found) from error
        self._pulse.watch_containers(self._seen[user][1])
        return self._seen[user][1]

    def _inspected(
        self, ids: list[str], starts: dict[str, Json], user: str
    ) -> tuple[planner.Container, ...]:
        answer = self._run(podman.inspect_argv(ids), user)
        if not answer.ok and "no such" not in answer.stderr.lower():
            # NB an empty list here would read as "all containers are gone".
            raise _no_answer(answer)
        containers = podman.containers(
            answer.stdout,
            started={k: str(v.get("boot")) for k, v in starts.items()},
            boot_id=self._world.boot_id(),
        )
        return tuple(_with_restarts(one, starts) for one in containers)

    def images(self, spec: specs.Spec) -> dict[tuple[str, str], str]:
        """(user, reference) of each image and artifact that must be in the store of that user, as
        far as is known -> the application that wants it.

        Of an application that comes from an image, what it needs is known once that is here.
        """
        apps = [app for app in spec.applications if podman.objection(app) is None]
        return {image: app.name for app in reversed(apps) for image in self._images_of(app)}

    def _images_of(self, app: specs.Application) -> tuple[tuple[str, str], ...]:
        try:
            return self._applications.images(app)
        except quadlet.Invalid:
            # For `objection` to say.
            return ()

    def missing(self, spec: specs.Spec) -> tuple[planner.PullImage | appplan.Step, ...]:
        lookups = tuple(self._lookups(spec))
        wanted, withheld = self.images(spec), self._withheld(spec)
        stores = {user: self._stores.of(user) for user, _ in wanted}
        pins = {user: store.pins() for user, store in stores.items()}
        pulls = tuple(
            planner.PullImage(name, image, user, specs.NEVER if (user, image) in withheld else "")
            for (user, image), name in wanted.items()
            if not stores[user].is_here(image, pins[user])
        )
        bundles = tuple(
            appplan.FetchBundle(app.name, app.image)
            for app in spec.applications
            if app.app_type in (podman.COMPOSE, podman.QUADLET) and self._bundles.files(app) is None
        )
        charts = (a for a in spec.applications if a.app_type == helm.HELM)
        of_charts = tuple(step for app in charts for step in self._charts.missing(app))
        # What is in a bundle is known when its image is here.
        return (*(lookups or pulls or bundles), *of_charts)

    def _lookups(self, spec: specs.Spec) -> Iterable[appplan.LookUp]:
        for app in spec.applications:
            user = self._applications.user_of(app)
            for volume in self._stores.meant.lacking(app, user):
                yield appplan.LookUp(app.name, volume.image, volume.version, user)

    def _withheld(self, spec: specs.Spec) -> set[tuple[str, str]]:
        """Images that nobody wants but volumes that may not have them pulled."""
        uses: dict[tuple[str, str], set[str]] = {}
        for app in spec.applications:
            if self._images_of(app):
                for user, image, policy in self._applications.needs(app):
                    uses.setdefault((user, image), set()).add(policy)
        return {image for image, policies in uses.items() if policies == {specs.NEVER}}

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
            podman.spec_digest(self._stores.meant.resolved(app, ""), with_limits=with_limits),
            is_stopped=app.is_stopped,
            restart_generation=app.restart_generation,
            volumes=self._applications.wanted_volumes(app),
        )

    def _against_applications(self, apps: tuple[specs.Application, ...]) -> errors.Reject | None:
        names: dict[str, str] = {}
        for app in apps:
            if found := podman.objection(app):
                return found
            if apps_problem := self._applications.objection(app):
                return apps_problem
            other = names.setdefault(podman.container_name(app), app.name)
            if other != app.name:
                detail = f"its identifier is that of {other} too"
                return _reject(errors.INVALID_ARGUMENT, detail, app.name)
            lacking = podman.missing_controllers(app, self._world.cgroup_controllers())
            if lacking and self._bounds.limits == settings.REQUIRE:
                detail = f"this device cannot limit {' and '.join(lacking)}: no such cgroup"
                return _reject(errors.FAILED_PRECONDITION, detail, app.name)
        apps = tuple(app for app in apps if app.app_type != helm.HELM)
        if apps and self._run(["podman", "--version"]).status == world.NOT_STARTED:
            detail = "podman is not installed on this device"
            return _reject(errors.FAILED_PRECONDITION, detail, apps[0].name)
        return None

    def _run(self, argv: list[str], user: str = "") -> world.Completed:
        return self._accounts.run(user, argv, timeout_s=QUICK_S)


def _with_restarts(one: planner.Container, starts: dict[str, Json]) -> planner.Container:
    done = starts.get(one.container, {}).get("generation")
    if isinstance(done, int) and done > one.restart_generation:
        return replace(one, restart_generation=done)
    return one


def _compared(one: planner.Container, identities: dict[str, str]) -> planner.Container:
    """With a mark where its image is not the one that was fetched under this name."""
    meant = identities.get(one.image, "").removeprefix("sha256:")
    is_other = bool(meant and one.image_id) and one.image_id.removeprefix("sha256:") != meant
    return replace(one, is_swapped=is_other)


def _no_answer(answer: world.Completed) -> errors.Retry:
    detail = f"podman: {podman.last_words(answer.words)}"
    return errors.Retry(errors.INTERNAL, detail, component=errors.APPLICATIONS)


def _reject(cause: str, detail: str, app: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.APPLICATIONS, element=app)
