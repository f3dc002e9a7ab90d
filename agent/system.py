"""The operating system of this device: observed and changed, by whatever tool is here for it.

What neither the tool nor a specification knows is kept in `os.json`, for each version at most one
record, written when its image was fetched: what its tag meant then, and which system ran before.
The record is a convenience and no authority: without it references are compared by their names.

Decides nothing but which command serves a step; what is to be done is `osimage`'s to say.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from agent import bootc, errors, osimage, podman, pulse, rpmostree, settings, specs, states, world
from agent.osimage import BOOTC, PACKAGE, RPM_OSTREE
from agent.pulling import Pulling, Wanted
from agent.throttle import Throttle
from resources.records import dataclass, replace

log = logging.getLogger("agent.system")

Json = dict[str, Any]

AUTH_FILE = "/etc/ostree/auth.json"
QUICK_S = 60.0
LOOK_UP_S = 30.0
# Writing a system of some gigabytes to slow flash.
STAGE_S = 3600.0
# What somebody does by hand is seen after this at the latest; a look costs a child process, and
# wakes rpm-ostree's daemon.
FRESH_S = 15.0
# Where libostree is beneath: it touches the first with each change of what is bootable, so that
# others notice, and what is staged for the next boot is in the second, whoever has changed it. So
# while both are as they were, so are the slots; what they miss (a person who edits an origin by
# hand) is seen as late as what the pulse misses.
DEPLOYMENTS, STAGED = "/ostree/deploy", "/run/ostree/staged-deployment"


def mode_of(where: world.World) -> str:
    """Which tool this device is updated by. Under a root of its own nobody may reboot: none."""
    if not where.is_whole_machine():
        return PACKAGE
    probe = where.run(bootc.PROBE, timeout_s=QUICK_S)
    if probe.status != world.NOT_STARTED and _is_booted_by_bootc(where):
        return BOOTC
    probe = where.run(rpmostree.PROBE, timeout_s=QUICK_S)
    return PACKAGE if probe.status == world.NOT_STARTED else RPM_OSTREE


def _is_booted_by_bootc(where: world.World) -> bool:
    """bootc may be installed where nothing was booted by it; an answer that is none counts as yes,
    since another bootc may hold the lock at this moment."""
    answer = where.run(bootc.status_argv(), timeout_s=QUICK_S)
    try:
        return not answer.ok or bootc.slots(answer.stdout) is not None
    except ValueError:
        return True


@dataclass(frozen=True, slots=True)
class _Seen:
    """Slots, when they were asked for, and the times of what moves with them."""

    at: float
    times: tuple[int, int]
    slots: osimage.Slots

    def holds(self, now: float, times: tuple[int, int]) -> bool:
        patience_s = pulse.ANSWERS_HOLD_S if times[0] else FRESH_S
        return times == self.times and now - self.at < patience_s


class System:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        mode: str | None = None,
        pulling: Pulling | None = None,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._mode = mode
        self._pulling = pulling or Pulling(where, bounds, Throttle(0.0))
        self._path = f"{bounds.own_dir}/os.json"
        self._seen: _Seen | None = None

    @property
    def mode(self) -> str:
        if self._mode is None:
            self._mode = mode_of(self._world)
        return self._mode

    # What is. -------------------------------------------------------------------------------------

    def slots(self, *, is_fresh: bool = False) -> osimage.Slots | None:
        """None = not image-based. Raises Retry where the tool does not answer."""
        if self.mode == PACKAGE:
            return None
        # NB race: before the tool is asked. What changes after that is seen by the next look.
        now, times = self._world.monotonic(), self._times()
        if self._seen is not None and not is_fresh and self._seen.holds(now, times):
            return self._seen.slots
        is_bootc = self.mode == BOOTC
        argv = bootc.status_argv() if is_bootc else rpmostree.status_argv()
        answer = self._world.run(argv, timeout_s=QUICK_S)
        try:
            if not answer.ok:
                raise ValueError(bootc.last_line(answer.words))
            found = bootc.slots(answer.stdout) if is_bootc else rpmostree.slots(answer.stdout)
        except ValueError as error:
            detail = f"{self.mode} status: {error}"
            raise errors.Retry(errors.INTERNAL, detail, component=errors.OS) from error
        if found is None:
            detail = f"{self.mode} status names no booted system"
            raise errors.Retry(errors.INTERNAL, detail, component=errors.OS)
        self._seen = _Seen(now, times, found)
        return found

    def _times(self) -> tuple[int, int]:
        """(0, ...) = nothing tells when the slots change."""
        try:
            return self._world.touched_ns(DEPLOYMENTS), self._world.touched_ns(STAGED)
        except OSError:
            return 0, 0

    def slots_or_trouble(self) -> tuple[osimage.Slots | None, errors.Retry | None]:
        """As `slots`, for who can go on without them."""
        try:
            return self.slots(), None
        except errors.Retry as error:
            log.warning("operating system not observed: %s", error)
            return None, error

    def booted_name(self) -> str:
        slots, _ = self.slots_or_trouble()
        return slots.booted.image if slots is not None and slots.booted is not None else ""

    def section(self, committed: specs.Spec, slots: osimage.Slots | None) -> Json:
        """`status.os`. The image is called as the specification calls it, where it is the same."""
        booted = slots.booted if slots is not None else None
        if booted is None:
            return {"image": "", "imageDigest": ""}
        wanted = self._of(committed)
        is_as_wanted = wanted is not None and osimage.is_same(wanted, booted)
        image = committed.os_image if is_as_wanted else booted.image
        return {"image": image, "imageDigest": booted.digest}

    # What should be. ------------------------------------------------------------------------------

    def wanted(
        self, state: states.State, goal: specs.Spec, *, repairs: int
    ) -> osimage.Wanted | None:
        """None = whatever is booted is fine. `repairs`: reboots that were to mend drift so far."""
        if self.mode == PACKAGE:
            return None
        found = self._of(goal)
        if states.heads_for_target(state):
            return found
        target = states.target_of(state)
        if found is None and isinstance(state, states.RollingBack) and target is not None:
            # The old specification did not say; the system that ran then is the one to go back to.
            found = _before(self._records().get(target.version))
        if found is None:
            return None
        match state:
            case states.RollingBack():
                may_reboot = state.reboots < osimage.REBOOTS_BACK_MAX
            case states.Idle() | states.Refused():
                may_reboot = repairs < osimage.REBOOTS_BACK_MAX
            case _:
                # A newer specification is on its way, and with it perhaps another system.
                may_reboot = False
        return replace(found, may_roll_back=True, may_reboot=may_reboot)

    def fallen_back(
        self,
        state: states.State,
        wanted: osimage.Wanted | None,
        slots: osimage.Slots | None,
        at: str,
    ) -> errors.Failure | None:
        """The new system was started, and another one runs."""
        if wanted is None or slots is None or osimage.is_same(wanted, slots.booted):
            return None
        match state:
            case states.Applying() if state.reboots:
                if not osimage.has_fallen_back(wanted, slots, state.rollback_before):
                    return None
                why = "the new system or the agent in it did not start"
            case states.Verifying() if state.has_rebooted:
                why = "the new system did not last"
            case _:
                return None
        detail = f"{why}; the boot loader went back to {osimage.name_of(slots.booted)}"
        return errors.Failure(errors.REBOOTING, errors.OS, wanted.image, errors.ABORTED, detail, at)

    def is_away(self, committed: specs.Spec, slots: osimage.Slots | None) -> bool:
        """Whether another system runs, or may, than the one that `committed` is for."""
        home = None if self.mode == PACKAGE else self._of(committed)
        return home is not None and (slots is None or not osimage.is_same(home, slots.booted))

    def astray(self, wanted: osimage.Wanted | None, slots: osimage.Slots | None) -> str:
        """For people: what runs, or would run next, though it should not; empty = all is well."""
        if wanted is None or slots is None:
            return ""
        if not osimage.is_same(wanted, slots.booted):
            words = f"booted OS image {osimage.name_of(slots.booted)}, expected {wanted.image}"
            return words if wanted.may_reboot else f"{words}; not put back by reboots any more"
        if slots.staged is not None and not osimage.is_same(wanted, slots.staged):
            return f"OS image {slots.staged.image} is staged, and not wanted"
        return ""

    def _of(self, spec: specs.Spec) -> osimage.Wanted | None:
        if not spec.os_image:
            return None
        record = self._records().get(spec.target.version, {})
        digests = record.get("digests") if record.get("image") == spec.os_image else ()
        return osimage.Wanted(spec.os_image, _texts(digests))

    def objection(self, spec: specs.Spec) -> errors.Reject | None:
        if not spec.os_image:
            return None
        if self.mode == PACKAGE:
            detail = (
                "this device is not image-based (neither bootc nor rpm-ostree runs it);"
                " take spec.os out, or install the device from an image"
            )
            return _reject(errors.UNIMPLEMENTED, detail, spec.os_image)
        try:
            osimage.reference(spec.os_image)
        except ValueError as error:
            return _reject(errors.INVALID_ARGUMENT, f"spec.os.image: {error}", spec.os_image)
        return None

    def missing(self, spec: specs.Spec) -> tuple[osimage.PullOs, ...]:
        """Empty where the image is known and here; for each version it is fetched once."""
        if not spec.os_image or self.mode == PACKAGE:
            return ()
        if self._records().get(spec.target.version, {}).get("image") == spec.os_image:
            return ()
        return (osimage.PullOs(spec.os_image),)

    # Doing. ---------------------------------------------------------------------------------------

    def perform(self, step: osimage.Step, spec: specs.Spec, committed: specs.Spec) -> None:
        """Raises Retry, Reject. Every step may be done again after a crash."""
        self._pulling.use(spec.files)
        match step:
            case osimage.PullOs():
                self._fetch(spec, committed)
            case osimage.StageOs():
                self._stage(step, spec)
            case osimage.DiscardStaged():
                self._discard(step)
            case osimage.QueueRollback() | osimage.DequeueRollback():
                self._change(self._rollback_argv(), step.image)
            case osimage.Reboot():
                self._world.reboot()

    def _rollback_argv(self) -> list[str]:
        return bootc.rollback_argv() if self.mode == BOOTC else rpmostree.rollback_argv()

    def _stage_argv(self, name: str) -> list[str]:
        return bootc.stage_argv(name) if self.mode == BOOTC else rpmostree.stage_argv(name)

    def _stage(self, step: osimage.StageOs, spec: specs.Spec) -> None:
        self._switch(step.name, step.image)
        slots = self.slots(is_fresh=True)
        staged = slots.staged if slots is not None else None
        record = self._records().get(spec.target.version)
        is_ours = staged is not None and staged.image == step.name and staged.digest
        if staged is not None and is_ours and record and record.get("image") == step.image:
            # How the tool calls what it has just made: the surest name there is.
            digests = _texts(record.get("digests"))
            if staged.digest not in digests:
                self._keep(spec.target.version, {**record, "digests": [*digests, staged.digest]})

    def _switch(self, name: str, image: str) -> None:
        try:
            self._change(self._stage_argv(name), image, timeout_s=STAGE_S)
        except errors.Retry as error:
            if not bootc.is_image_missing(error.detail):
                raise
            # It was here when the update began; somebody has cleaned up.
            self._pull(name, image)
            self._change(self._stage_argv(name), image, timeout_s=STAGE_S)

    def _discard(self, step: osimage.DiscardStaged) -> None:
        slots = self.slots(is_fresh=True)
        if slots is None or slots.booted is None or slots.staged is None:
            return
        if self.mode == RPM_OSTREE:
            self._change(rpmostree.discard_argv(), step.image)
        elif self._undeploy():
            return
        elif slots.rollback is not None:
            # Without libostree's tool: bootc's rollback drops what is staged. That the next boot
            # would start the rollback slot is then seen, and taken back by the next step.
            self._change(bootc.rollback_argv(), step.image)
        else:
            digests = (slots.booted.digest,) if slots.booted.digest else ()
            name = osimage.stage_name(osimage.Wanted(slots.booted.image, digests), slots)
            self._switch(name, step.image)

    def _undeploy(self) -> bool:
        """Drop what is staged, and nothing else: no network, no image, no order of boots is needed
        for it. False where there is no such tool."""
        self._seen = None
        return self._world.run(bootc.undeploy_argv(), timeout_s=QUICK_S * 10).ok

    def _change(self, argv: list[str], image: str, *, timeout_s: float = QUICK_S * 10) -> None:
        self._seen = None
        answer = self._world.run(argv, timeout_s=timeout_s)
        if not answer.ok:
            raise bootc.error(answer.words, image=image)

    def _fetch(self, spec: specs.Spec, committed: specs.Spec) -> None:
        """The image is here, or booted already, and what its name means is written down."""
        image = spec.os_image
        slots = self.slots(is_fresh=True)
        booted = slots.booted if slots is not None else None
        known = self._records().get(committed.target.version, {})
        digests = _texts(known.get("digests")) if known.get("image") == image else ()
        is_booted = osimage.is_same(osimage.Wanted(image, digests), booted)
        if is_booted and booted is not None and booted.digest:
            digests = (*digests, booted.digest) if booted.digest not in digests else digests
        if not is_booted or self._has_moved(image, digests):
            name = str(osimage.reference(image))
            is_here = bool(osimage.reference(image).digest) and self._is_here(name)
            if not is_here:
                self._pull(name, image)
            digests = self._digests(name)
        record: Json = {"image": image, "digests": list(digests)}
        if booted is not None:
            record["before"] = {"image": booted.image, "digest": booted.digest}
        self._keep(spec.target.version, record, beside=committed.target.version)

    def _has_moved(self, image: str, digests: tuple[str, ...]) -> bool:
        """Whether the tag of what is booted means something else by now; nobody to ask = no."""
        target = osimage.reference(image)
        if target.digest or not digests:
            return False
        argv = podman.look_up_argv(str(target))
        answer = self._pulling.look_up(argv, Wanted(image, image, AUTH_FILE), limit_s=LOOK_UP_S)
        if not answer.ok:
            log.warning("tag not looked up image=%s: %s", image, errors.one_line(answer.words))
            return False
        return answer.stdout.strip() not in digests

    def _pull(self, name: str, image: str) -> None:
        wanted = Wanted(name, image, AUTH_FILE, is_system=True)
        answer = self._pulling.pull(podman.pull_argv(name), wanted)
        if not answer.ok:
            raise self._pulling.failed(answer, wanted)

    def _is_here(self, name: str) -> bool:
        return self._world.run(podman.image_exists_argv(name), timeout_s=QUICK_S).ok

    def _digests(self, name: str) -> tuple[str, ...]:
        answer = self._world.run(podman.image_inspect_argv(name), timeout_s=QUICK_S)
        return podman.image_digests(answer.stdout) if answer.ok else ()

    # os.json. -------------------------------------------------------------------------------------

    def _records(self) -> dict[str, Json]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
        except ValueError:
            return {}
        if not isinstance(found, dict):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, dict)}

    def _keep(self, version: str, record: Json, *, beside: str = "") -> None:
        """With no other record than that of `beside`; without `beside`, with all there are."""
        kept = {k: v for k, v in self._records().items() if not beside or k == beside}
        data = json.dumps({**kept, version: record}, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)


def _before(record: Json | None) -> osimage.Wanted | None:
    before = record.get("before") if record else None
    if not isinstance(before, dict) or not before.get("image"):
        return None
    return osimage.Wanted(str(before["image"]), _texts([before.get("digest")]))


def _texts(values: Any) -> tuple[str, ...]:
    found = values if isinstance(values, list | tuple) else ()
    return tuple(one for one in found if isinstance(one, str) and one)


def _reject(cause: str, detail: str, image: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.OS, element=image)
