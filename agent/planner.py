"""What is left to do: (wanted, observed) -> steps. Pure, and the same for every direction.

Going forward, going back and repairing drift are one function with another `wanted`. A plan is
empty exactly if the device is as wanted; every step brings it nearer and may be repeated.

Order. Files first, then containers: an application should find the configuration it was released
with. Each backup stands right before the first write to its path, so that nothing that a person
changed meanwhile is lost. All containers that must go are stopped and removed before one is made,
for a port or a name may pass from one application to another.

An operating system that must be started first splits the work: what it takes over is done before
the reboot, which is the last step; the applications are planned anew on the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent import appplan, osimage, world
from resources.records import dataclass, field

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PullImage:
    """`user`: into whose store, empty for root's. `policy` Never: it is refused, for want of it."""

    app: str
    image: str
    user: str = ""
    policy: str = ""


@dataclass(frozen=True, slots=True)
class BackUp:
    path: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Restore:
    """What was at `path` before comes back, or `path` is removed; then it is not ours any more.

    `is_kept`: but what was there is kept in mind, for it may have to be given back once more."""

    path: str
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class StopContainer:
    app: str
    container: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    app: str
    container: str


@dataclass(frozen=True, slots=True)
class CreateContainer:
    app: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """`container` empty = the one that the step before has made."""

    app: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class RestartContainer:
    app: str
    container: str
    generation: int


@dataclass(frozen=True, slots=True)
class RunHooks:
    """`key` names the transition; it is marked as done for that one."""

    point: str
    key: str


LocalStep = (
    RunHooks
    | PullImage
    | BackUp
    | WriteFile
    | Restore
    | StopContainer
    | RemoveContainer
    | CreateContainer
    | StartContainer
    | RestartContainer
    | appplan.Step
)
Step = LocalStep | osimage.Step


def words(step: Step) -> Json:
    """For journal and log: names and digests, never contents."""
    fields = {name: getattr(step, name) for name in step.__match_args__}
    return {"do": type(step).__name__, **{k: v for k, v in fields.items() if v}}


@dataclass(frozen=True, slots=True)
class FileState:
    """A path as it is; `is_labelled` False: its SELinux label is not the policy's."""

    kind: str
    digest: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    is_labelled: bool = True


@dataclass(frozen=True, slots=True)
class WantedFile:
    path: str
    digest: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class WantedContainer:
    """`app` is the application's name, `app_id` the identifier on its containers."""

    app: str
    container_name: str
    app_id: str
    digest: str
    is_stopped: bool = False
    restart_generation: int = 0
    volumes: tuple[appplan.WantedVolume, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """One container of ours, or one that has the name or label that ours need.

    `is_of_this_boot`: it was started since the machine was, so an exit with 0 was its own will.
    """

    container: str
    name: str
    app_id: str
    digest: str
    state: str
    is_ours: bool = True
    exit_code: int = 0
    is_of_this_boot: bool = True
    stopped_by_hand: bool = False
    restart_generation: int = 0
    restarts: int = 0
    started_at: str = ""
    health: str = ""
    has_healthcheck: bool = False
    health_output: str = ""
    trouble: str = ""
    # The unit, or the project and service of Compose, that it belongs to.
    unit: str = ""
    project: str = ""
    service: str = ""
    image: str = ""
    image_id: str = ""
    # Its first process, and where podman writes what its health check finds; 0 and empty = unknown.
    pid: int = 0
    health_log: str = ""
    # What it runs is not what its image was when that was fetched.
    is_swapped: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    files: tuple[WantedFile, ...] = ()
    containers: tuple[WantedContainer, ...] = ()
    os: osimage.Wanted | None = None
    apps: tuple[appplan.WantedApp, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """`originals`: paths that are ours now, each with a record of what was there before;
    `given_back`: those that are not any more, with the record kept.

    `volumes`: those that the agent has filled, and with what.
    """

    files: Mapping[str, FileState] = field(default_factory=dict)
    originals: frozenset[str] = frozenset()
    containers: tuple[Container, ...] = ()
    os: osimage.Slots | None = None
    apps: tuple[appplan.FoundApp, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    given_back: frozenset[str] = frozenset()


RUNNING = ("running", "paused", "stopping", "restarting")
# Made, and never started: podman calls it so before and after a reboot.
FRESH = ("created", "configured", "initialized")


def plan(
    wanted: Wanted, observed: Observed, *, revives: bool = True, keeps_records: bool = False
) -> tuple[Step, ...]:
    """`revives`: applications that were started in this boot and are down are started again.

    `keeps_records`: going back was given up in another system than the one to go back to. In that
    one's own `/etc` the same paths will have to be given back again."""
    system = osimage.plan(wanted.os, observed.os)
    if system.reboot is not None:
        files = () if system.is_back else _files(wanted, observed, keeps_records=keeps_records)
        return (*system.steps, *files, system.reboot)
    keep = _kept(wanted.containers, observed.containers)
    # Giving back forgets what was there. Where it is not known which system runs it may be another
    # one, with an /etc of its own; the wanted one would then keep what it should have given back.
    is_blind = wanted.os is not None and observed.os is None
    files = tuple(_files(wanted, observed, gives_back=not is_blind, keeps_records=keeps_records))
    return (
        *system.steps,
        *(step for step in files if not _is_obstructed(step.path, observed)),
        *_unwanted(wanted.containers, observed.containers, keep),
        *appplan.removals(wanted.apps, observed.apps, observed.volumes),
        *(
            step
            for one in wanted.containers
            for step in _container(one, keep.get(one.app), observed.volumes)
        ),
        *appplan.creations(wanted.apps, observed.apps, observed.volumes, revives=revives),
        # Last, for they fail: who may put a directory or a link in the way of one file must not
        # keep the agent from repairing, or going back with, everything else.
        *(step for step in files if _is_obstructed(step.path, observed)),
    )


def drift(wanted: Wanted, observed: Observed) -> tuple[str, ...]:
    """What somebody has changed: paths, and names of applications whose files are not theirs."""
    paths = [s.path for s in _files(wanted, observed) if isinstance(s, WriteFile | Restore)]
    found = {one.place: one for one in observed.apps}
    apps = (
        one.app
        for one in wanted.apps
        if (there := found.get(one.place)) is not None
        and there.stamp is not None
        and one.digest
        and not appplan.has_its_files(one, there)
    )
    return (*paths, *apps)


def _is_obstructed(path: str, observed: Observed) -> bool:
    found = observed.files.get(path)
    return found is not None and found.kind not in (world.FILE, world.LINK)


def _files(
    wanted: Wanted, observed: Observed, *, gives_back: bool = True, keeps_records: bool = False
) -> Iterable[BackUp | WriteFile | Restore]:
    paths = {one.path for one in wanted.files}
    ours = observed.originals if keeps_records else observed.originals | observed.given_back
    for path in sorted(ours - paths) if gives_back else ():
        yield Restore(path, keeps_records)
    for one in wanted.files:
        if one.path not in observed.originals:
            yield BackUp(one.path)
        if not _is_as_wanted(one, observed.files.get(one.path)):
            yield WriteFile(one.path, one.digest)


def _is_as_wanted(one: WantedFile, found: FileState | None) -> bool:
    return found == FileState(world.FILE, one.digest, one.mode, one.uid, one.gid)


def _kept(
    wanted: tuple[WantedContainer, ...], found: tuple[Container, ...]
) -> dict[str, Container]:
    keep: dict[str, Container] = {}
    for one in wanted:
        fits = [c for c in found if _fits(one, c)]
        if fits:
            keep[one.app] = fits[0]
    return keep


def _unwanted(
    wanted: tuple[WantedContainer, ...],
    found: tuple[Container, ...],
    keep: Mapping[str, Container],
) -> Iterable[Step]:
    kept = {c.container for c in keep.values()}
    names = {one.container_name for one in wanted}
    for container in found:
        if container.container in kept or not (container.is_ours or container.name in names):
            continue
        if container.state in RUNNING:
            yield StopContainer(container.app_id, container.container)
        yield RemoveContainer(container.app_id, container.container)


def _fits(one: WantedContainer, found: Container) -> bool:
    return (
        found.is_ours
        and found.app_id == one.app_id
        and found.name == one.container_name
        and found.digest == one.digest
        and not found.is_swapped
        # What podman cannot start or remove any more is made anew.
        and found.state not in ("removing", "unknown")
    )


def _container(
    one: WantedContainer, found: Container | None, volumes: Mapping[str, str]
) -> Iterable[Step]:
    if found is None:
        yield from appplan.fillings(one.app, one.volumes, volumes)
        yield CreateContainer(one.app)
        if not one.is_stopped:
            yield StartContainer(one.app)
        return
    is_running = found.state in RUNNING
    if one.is_stopped:
        if is_running:
            yield StopContainer(one.app, found.container)
        return
    if one.restart_generation > found.restart_generation:
        yield RestartContainer(one.app, found.container, one.restart_generation)
    elif not is_running and not is_complete(found):
        yield StartContainer(one.app, found.container)


def is_complete(found: Container) -> bool:
    """It ended by itself, in this boot, and called it a success."""
    return (
        found.state in ("exited", "stopped")
        and found.exit_code == 0
        and found.is_of_this_boot
        and not found.stopped_by_hand
    )
