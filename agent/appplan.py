"""What is left to do for Compose and Quadlet applications. Pure; `planner` puts it in its place.

An application is a folder of files, things that run because of them, and a stamp: which content was
started last, in which boot. The stamp is emptied before the first file of another content is
written and set after the start, so that an interruption anywhere in between reads as "not as
wanted", and all of it is done again. An application without a stamp is one that another agent has
left: it is adopted, running as it is, if its files are right; where a device is taken over, as they
are.

Whatever must go is stopped before anything is made, for a port may pass from one application to
another. Volumes are never removed.

`user` is whose podman and systemd it runs in, empty for root's. An application that is to run for
another user is another application: gone there, made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from resources.records import dataclass, field

COMPOSE, QUADLET, HELM = "compose", "quadlet", "helm"

# What a workload can be; the table of the status counts these.
RUNNING = "running"
UNHEALTHY = "unhealthy"
STARTING = "starting"
STOPPING = "stopping"
COMPLETED = "completed"
FAILED = "failed"
# It has ended, and systemd is about to start it once more.
CRASHING = "crashing"
UP = (RUNNING, UNHEALTHY, STARTING, STOPPING, CRASHING)

# (digest, mode, uid, gid) of a file as it is or should be.
Mark = tuple[str, int, int, int]
# (kind, user, identifier): no two applications of a device have the same.
Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Workload:
    """One service of an application; `container` is what podman runs for it, if it does.

    `began` changes whenever it was started anew. `why` says what is wrong, for people.
    """

    name: str
    state: str
    container: str = ""
    restarts: int = 0
    began: str = ""
    has_healthcheck: bool = False
    why: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class WantedVolume:
    """`stamp`: the content that it is to be filled with."""

    name: str
    volume: str
    reference: str
    stamp: str
    user: str = ""

    @property
    def key(self) -> str:
        return volume_key(self.user, self.volume)


def volume_key(user: str, volume: str) -> str:
    """What a volume is remembered by: two users may each have one of that name."""
    return f"{user}:{volume}" if user else volume


@dataclass(frozen=True, slots=True)
class WantedApp:
    """`digest` empty = its content is not on this device any more and must be fetched first.
    `spec_digest` is of what the specification says, whatever that is turned into."""

    app: str
    app_id: str
    kind: str
    folder: str
    digest: str
    image: str = ""
    files: Mapping[str, Mark] = field(default_factory=dict)
    workloads: tuple[str, ...] = ()
    volumes: tuple[WantedVolume, ...] = ()
    is_stopped: bool = False
    restart_generation: int = 0
    spec_digest: str = ""
    is_embedded: bool = False
    user: str = ""

    @property
    def place(self) -> Place:
        return self.kind, self.user, self.app_id


@dataclass(frozen=True, slots=True)
class Stamp:
    """`adopted`: its files as another agent has left them for the specification `adopted_as`; as
    long as both are the same they are right, however that agent writes its files."""

    digest: str
    boot: str = ""
    generation: int = 0
    paths: tuple[str, ...] = ()
    adopted_as: str = ""
    adopted: Mapping[str, Mark] = field(default_factory=dict)
    user: str = ""


@dataclass(frozen=True, slots=True)
class FoundApp:
    """`files`: those in its folder that are the agent's. `units`: what systemd is told to stop."""

    app_id: str
    kind: str
    folder: str
    files: Mapping[str, Mark] = field(default_factory=dict)
    stamp: Stamp | None = None
    is_of_this_boot: bool = False
    workloads: tuple[Workload, ...] = ()
    units: tuple[str, ...] = ()
    is_target_up: bool = True
    # A container of its runs another image than was fetched under that name.
    is_swapped: bool = False
    user: str = ""

    @property
    def place(self) -> Place:
        return self.kind, self.user, self.app_id


@dataclass(frozen=True, slots=True)
class FetchBundle:
    """The files of an application, out of its image. `is_repair`: they were here before."""

    app: str
    image: str
    is_repair: bool = False


@dataclass(frozen=True, slots=True)
class FetchChart:
    app: str
    image: str
    is_repair: bool = False


@dataclass(frozen=True, slots=True)
class PullCri:
    """An image into the store of the cluster on this device."""

    app: str
    image: str


@dataclass(frozen=True, slots=True)
class LookUp:
    """What the tag of a volume means for `version`, whatever is here."""

    app: str
    image: str
    version: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class StopApp:
    app_id: str
    kind: str
    units: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class ClearApp:
    """Containers, pods and networks of the application go; its volumes stay."""

    app_id: str
    kind: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class RemoveApp:
    app_id: str
    kind: str
    folder: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class InstallApp:
    app: str
    digest: str


@dataclass(frozen=True, slots=True)
class ReloadUnits:
    user: str = ""


@dataclass(frozen=True, slots=True)
class FillVolume:
    app: str
    volume: str
    reference: str


@dataclass(frozen=True, slots=True)
class StartApp:
    """Unless it is to be stopped; either way its content counts as applied from then on."""

    app: str


@dataclass(frozen=True, slots=True)
class RestartApp:
    app: str
    generation: int


Step = (
    FetchBundle
    | FetchChart
    | PullCri
    | LookUp
    | StopApp
    | ClearApp
    | RemoveApp
    | InstallApp
    | ReloadUnits
    | FillVolume
    | StartApp
    | RestartApp
)

Volumes = Mapping[str, str]


def removals(
    wanted: Iterable[WantedApp], found: Iterable[FoundApp], volumes: Volumes
) -> Iterable[Step]:
    """What must go: whole applications, and what runs of those that are to change."""
    by_place = {w.place: w for w in wanted}
    for one in found:
        target = by_place.get(one.place)
        if target is not None and (not target.digest or is_as_wanted(target, one, volumes)):
            continue
        if one.kind == HELM:
            # A change is an upgrade, in place.
            if target is None:
                yield RemoveApp(one.app_id, one.kind, one.folder)
            continue
        if one.units or any(w.state in UP for w in one.workloads):
            yield StopApp(one.app_id, one.kind, one.units, one.user)
        yield ClearApp(one.app_id, one.kind, one.user)
        if target is None or target.folder != one.folder:
            yield RemoveApp(one.app_id, one.kind, one.folder, one.user)


def creations(
    wanted: Iterable[WantedApp], found: Iterable[FoundApp], volumes: Volumes, *, revives: bool
) -> Iterable[Step]:
    """`revives`: also what has been started in this boot and is down is started again."""
    by_place = {f.place: f for f in found}
    ready = []
    for one in wanted:
        if one.digest:
            ready.append((one, by_place.get(one.place)))
        elif one.kind == HELM:
            yield FetchChart(one.app, one.image, is_repair=True)
        else:
            yield FetchBundle(one.app, one.image, is_repair=True)
    changing = [(w, f) for w, f in ready if f is None or not is_as_wanted(w, f, volumes)]
    for one, _ in changing:
        yield InstallApp(one.app, one.digest)
    for user in sorted({one.user for one, _ in changing if one.kind == QUADLET}):
        yield ReloadUnits(user)
    for one, _ in changing:
        yield from fillings(one.app, one.volumes, volumes)
        yield StartApp(one.app)
    for one, there in ready:
        if there is not None and is_as_wanted(one, there, volumes):
            yield from _lifecycle(one, there, revives=revives)


def fillings(app: str, wanted: Iterable[WantedVolume], volumes: Volumes) -> Iterable[Step]:
    """Only those whose content is another one: what an application wrote is not wiped for fun."""
    for volume in wanted:
        if volumes.get(volume.key) != volume.stamp:
            yield FillVolume(app, volume.name, volume.reference)


def is_as_wanted(wanted: WantedApp, found: FoundApp, volumes: Volumes) -> bool:
    """Its files and what was made of them; not whether it runs."""
    is_right = has_its_files(wanted, found) and (
        is_adopted(wanted, found.stamp)
        or found.stamp is None
        or found.stamp.digest == wanted.digest
    )
    return (
        wanted.folder == found.folder
        and not found.is_swapped
        and is_right
        and all(volumes.get(v.key) == v.stamp for v in wanted.volumes)
    )


def is_adopted(wanted: WantedApp, stamp: Stamp | None) -> bool:
    return stamp is not None and bool(stamp.adopted) and stamp.adopted_as == wanted.spec_digest


def has_its_files(wanted: WantedApp, found: FoundApp) -> bool:
    if is_adopted(wanted, found.stamp):
        assert found.stamp is not None
        return dict(found.stamp.adopted) == dict(found.files)
    return dict(wanted.files) == dict(found.files)


def _lifecycle(wanted: WantedApp, found: FoundApp, *, revives: bool) -> Iterable[Step]:
    states = {workload.name: workload.state for workload in found.workloads}
    if wanted.is_stopped:
        # Of a chart some go on whatever its scale is (DaemonSets, single pods): said once is said.
        is_told = found.kind == HELM and not found.is_of_this_boot
        if not is_told and any(state in UP for state in states.values()):
            yield StopApp(found.app_id, found.kind, found.units, found.user)
        elif found.stamp is None:
            yield StartApp(wanted.app)
        return
    generation = found.stamp.generation if found.stamp else 0
    if wanted.restart_generation > generation:
        yield RestartApp(wanted.app, wanted.restart_generation)
        return
    down = [name for name in wanted.workloads if states.get(name, FAILED) == FAILED]
    is_down = bool(down) or not found.is_target_up
    if found.stamp is None or (is_down and (revives or not found.is_of_this_boot)):
        yield StartApp(wanted.app)
