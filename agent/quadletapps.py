"""What there is of quadlet applications, root's and those of users. Changes nothing.

Their folders and targets say which there are, whoever made them; systemd says what runs of them,
podman in which containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from agent import accounts, errors, planner, quadlet, systemd, workloads, world
from agent.accounts import Accounts
from agent.appplan import QUADLET, FoundApp, Mark, Stamp, WantedApp, Workload
from agent.places import Look, Places
from agent.pulse import Pulse
from resources.records import replace

Containers = Mapping[str, tuple[planner.Container, ...]]
Stamps = Mapping[tuple[str, str], Stamp]


class QuadletApps:
    def __init__(
        self, where: world.World, accounts: Accounts, places: Places, pulse: Pulse
    ) -> None:
        self._pulse = pulse
        self._world = where
        self._accounts = accounts
        self._places = places

    def users(self, wanted: Iterable[WantedApp], stamps: Stamps) -> tuple[str, ...]:
        """Those who have, had or shall have applications here, without root."""
        known = {one.user for one in wanted} | {stamp.user for stamp in stamps.values()}
        # Our memory may be lost, or another agent's; who does not linger runs nothing.
        for account in self._accounts.lingering():
            try:
                targets = self._world.listdir(quadlet.site_of(account.home).targets)
            except world.Astray:
                # Where a link of theirs leads they are asked themselves.
                known.add(account.name)
                continue
            if any(quadlet.id_of_target(name) for name in targets):
                known.add(account.name)
        return tuple(sorted(known - {""}))

    def found(
        self, user: str, wanted: Iterable[WantedApp], stamps: Stamps, containers: Containers
    ) -> Iterator[FoundApp]:
        """Raises Retry."""
        targets = {w.app_id: w for w in wanted if w.kind == QUADLET and w.user == user}
        own = {i: s for (kind, i), s in stamps.items() if kind == QUADLET and s.user == user}
        running = containers.get(user, ())
        look = self._places.look(user, [one.folder for one in targets.values()], self._pulse)
        site = self._places.site(user)
        found = []
        for app_id, folder in sorted(_folders(look, site, targets, own).items()):
            marks = _marks(look, folder, f"{site.targets}/{quadlet.target_of(app_id)}")
            stamp = own.get(app_id)
            if not (marks or stamp or any(c.unit.startswith(f"{app_id}-") for c in running)):
                continue
            goal = targets.get(app_id)
            services = {*_services(look, site, app_id, folder), *(goal.workloads if goal else ())}
            units = (quadlet.target_of(app_id), *sorted(services))
            found.append(FoundApp(app_id, QUADLET, folder, marks, stamp, units=units, user=user))
        units_now = self._units(user, (name for one in found for name in one.units))
        for one in found:
            goal = targets.get(one.app_id)
            names = goal.workloads if goal else one.units
            mine = [c for c in running if c.unit.startswith(f"{one.app_id}-")]
            yield replace(
                one,
                is_of_this_boot=one.stamp is not None and one.stamp.boot == self._world.boot_id(),
                workloads=_workloads(names, units_now, running, user),
                is_target_up=units_now.get(one.units[0], systemd.Unit("")).is_up,
                is_swapped=any(c.is_swapped for c in mine),
            )

    def _units(self, user: str, names: Iterable[str]) -> dict[str, systemd.Unit]:
        asked = list(names)
        if not asked or (user and self._accounts.of(user) is None):
            return {}
        argv = accounts.systemctl_argv(user, systemd.show_argv(asked))
        answer = self._pulse.ask(argv, user)
        if not answer.ok:
            whose = f" of {user}" if user else ""
            detail = f"systemctl{whose}: {errors.one_line(answer.words)}"
            raise errors.Retry(errors.INTERNAL, detail, component=errors.APPLICATIONS)
        found = systemd.parse(answer.stdout)
        self._pulse.watch_units(found.values())
        return found


def _folders(
    look: Look,
    site: quadlet.Site,
    targets: Mapping[str, WantedApp],
    stamps: Mapping[str, Stamp],
) -> dict[str, str]:
    """Application -> its folder, empty where there is none."""
    found: dict[str, str] = {}
    for folder, names in look.apps.items():
        ids = [i for i in map(quadlet.id_of_target, names) if i]
        for app_id in ids[:1]:
            found[app_id] = folder
    for app_id, target in targets.items():
        found.setdefault(app_id, target.folder)
    prefix = f"{site.targets}/"
    left = [quadlet.id_of_target(p.removeprefix(prefix)) for p in look.marks if _is_in(p, prefix)]
    for app_id in (*filter(None, left), *stamps):
        found.setdefault(app_id, "")
    return found


def _is_in(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and "/" not in path.removeprefix(prefix)


def _marks(look: Look, folder: str, target: str) -> dict[str, Mark]:
    return {
        path: mark
        for path, mark in look.marks.items()
        if path == target or (folder and path.startswith(f"{folder}/"))
    }


def _services(look: Look, site: quadlet.Site, app_id: str, folder: str) -> list[str]:
    """As the target on the disk names them."""
    target = quadlet.target_of(app_id)
    for place in (site.targets, folder):
        if place and (text := look.texts.get(f"{place}/{target}")) is not None:
            return quadlet.services_in(text)
    return []


def _workloads(
    names: Iterable[str],
    units: Mapping[str, systemd.Unit],
    containers: tuple[planner.Container, ...],
    user: str,
) -> tuple[Workload, ...]:
    running = {c.unit: c for c in containers if c.unit and c.state in planner.RUNNING}
    known = [units[name] for name in names if name in units and name.endswith(".service")]
    found = (workloads.of_unit(unit, running.get(unit.name)) for unit in known)
    return tuple(replace(one, user=user) for one in found if one is not None)
