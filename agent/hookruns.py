"""Runs hooks, once for each transition, and knows which have run.

`hooks.json` says for which transition each point was done last. So an action without a condition
runs once for an update and not at every look; one that was cut off by a crash runs again, for
nobody knows how far it came. Where the way leads back, the actions after an update run for what is
given back; they cannot stop it. After a repair of files only those run that asked for these files.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from agent import errors, hooks, osimage, planner, specs, states, world
from agent.boots import Boots
from resources.records import dataclass

log = logging.getLogger("agent.hooks")

Json = dict[str, Any]
NOTHING = hooks.Changes()
# EX_TEMPFAIL of sysexits.h: "try again". Beside 1 and 2 nothing else has a meaning that is known.
LATER = 75
FILE_STEPS = (planner.BackUp, planner.WriteFile, planner.Restore)


@dataclass(frozen=True, slots=True)
class Pending:
    """What the next steps of hooks are about; set by `woven`, used by `run`."""

    what: hooks.Changes = NOTHING
    only_about_files: bool = False


class HookRuns:
    def __init__(self, where: world.World, own_dir: str, boots: Boots) -> None:
        self._world = where
        self._boots = boots
        self._path = f"{own_dir}/hooks.json"
        self._pending = Pending()

    # When. ----------------------------------------------------------------------------------------

    def woven(
        self,
        plan: tuple[planner.Step, ...],
        state: states.State,
        *,
        current: specs.Spec,
        desired: specs.Spec,
    ) -> tuple[planner.Step, ...]:
        """`plan` with the hooks in their places: before all, and after the files."""
        match state:
            case states.Applying():
                key = f"{state.target.version}/{state.attempt}"
                self._pending = Pending(hooks.changes(current.files, desired.files))
                return self._forward(plan, key)
            case states.RollingBack():
                key = f"{state.target.version}/{state.attempt}"
                if self._done(hooks.BEFORE_UPDATING) != key:
                    return plan
                self._pending = Pending(hooks.changes(desired.files, current.files))
                return self._after_files(plan, f"back {key}")
            case states.Idle() | states.Refused() | states.Fetching() | states.Staged():
                return self._repairing(plan)
            case _:
                return plan

    def _forward(self, plan: tuple[planner.Step, ...], key: str) -> tuple[planner.Step, ...]:
        if self._done(hooks.BEFORE_UPDATING) == key:
            return self._after_files(plan, key)
        if not plan:
            # Another number for what is there: nothing happens, so nothing is announced.
            return ()
        before = planner.RunHooks(hooks.BEFORE_UPDATING, key)
        return (before, *self._after_files(plan, key))

    def _after_files(self, plan: tuple[planner.Step, ...], key: str) -> tuple[planner.Step, ...]:
        """What is for after the update waits until the machine has come back from its reboot."""
        if plan and isinstance(plan[-1], osimage.Reboot):
            if self._done(hooks.BEFORE_REBOOTING) == key:
                return plan
            return (*plan[:-1], planner.RunHooks(hooks.BEFORE_REBOOTING, key), plan[-1])
        if self._done(hooks.AFTER_UPDATING) == key:
            return plan
        at = max((i + 1 for i, step in enumerate(plan) if isinstance(step, FILE_STEPS)), default=0)
        return (*plan[:at], planner.RunHooks(hooks.AFTER_UPDATING, key), *plan[at:])

    def _repairing(self, plan: tuple[planner.Step, ...]) -> tuple[planner.Step, ...]:
        written = tuple(step.path for step in plan if isinstance(step, planner.WriteFile))
        removed = tuple(step.path for step in plan if isinstance(step, planner.Restore))
        is_reboot = bool(plan) and isinstance(plan[-1], osimage.Reboot)
        if not (written or removed or is_reboot):
            return plan
        what = hooks.Changes(updated=written, removed=removed)
        self._pending = Pending(what, only_about_files=True)
        # NB a crash between the files and these is forgotten: the files are right by then.
        return self._after_files(plan, f"repair {self._world.now().timestamp()}")

    # Running. -------------------------------------------------------------------------------------

    def run(self, step: planner.RunHooks) -> None:
        """Raises Retry, Reject with the file at fault."""
        is_back = step.key.startswith("back ")
        try:
            self._run(step.point, self._pending)
        except errors.Reject as error:
            if not is_back:
                raise
            log.error("hook failed on the way back, passed over: %s", error)
        self._mark(step.point, step.key)

    def after_reboot(self, boot_id: str) -> str:
        """Once a boot; what went wrong, for the status. The first boot of all is no reboot."""
        known = self._done(hooks.AFTER_REBOOTING) or self._boots.last()
        trouble = ""
        if known == boot_id:
            self._boots.keep(boot_id)
            return ""
        if known:
            try:
                self._run(hooks.AFTER_REBOOTING, Pending(), is_rebooted=True)
            except errors.Reject as error:
                trouble = f"{error.element}: {error.detail}"
        self._mark(hooks.AFTER_REBOOTING, boot_id)
        self._boots.keep(boot_id)
        return trouble

    def _run(self, point: str, pending: Pending, *, is_rebooted: bool = False) -> None:
        for name, path in self._files(point):
            at = f"{point}/{name}"
            try:
                actions = hooks.parse(self._world.read(path) or b"")
            except hooks.Invalid as error:
                raise _reject(at, errors.INVALID_ARGUMENT, f"{path}: {error}") from error
            for action in actions:
                tokens = hooks.due(action, pending.what, is_rebooted=is_rebooted)
                if tokens is None or (pending.only_about_files and not action.is_about_files):
                    continue
                self._act(action, hooks.command(action.run, tokens), at)

    def _files(self, point: str) -> list[tuple[str, str]]:
        """In order of name; the later folder replaces the earlier one's file of the same name."""
        found: dict[str, str] = {}
        for folder in hooks.FOLDERS:
            for name in self._world.listdir(f"{folder}/{point}"):
                if name.endswith(hooks.ENDS):
                    found[name] = f"{folder}/{point}/{name}"
        return sorted(found.items())

    def _act(self, action: hooks.Action, command: hooks.Command, at: str) -> None:
        if not command.argv:
            return
        if action.work_dir:
            try:
                found = self._world.stat(action.work_dir)
            except world.Astray as error:
                raise _reject(at, errors.PERMISSION_DENIED, str(error.strerror)) from error
            if found is None or found.kind != world.DIRECTORY:
                raise _reject(at, errors.NOT_FOUND, f"workDir {action.work_dir} is no directory")
        log.info("hook runs file=%s command=%s", at, command.argv[0])
        answer = self._world.run(
            command.argv,
            timeout_s=action.timeout_s,
            env={
                **dict(action.env),
                **dict(command.env),
                "FLIGHTCTL_AGENT_PID": str(self._world.pid()),
            },
            cwd=action.work_dir or None,
        )
        if answer.status == world.NOT_STARTED and "No such file" in answer.stderr:
            # The packaged hooks name commands that not every image has.
            log.warning("hook passed over, not installed file=%s: %s", at, command.argv[0])
            return
        if answer.status == world.TIMED_OUT:
            detail = f"{command.argv[0]}: no end after {action.timeout_s:g} s"
            raise _reject(at, errors.DEADLINE_EXCEEDED, detail)
        if answer.status == LATER:
            words = errors.one_line(answer.words)
            detail = f"{at} asks for another time{': ' if words else ''}{words}"
            kind = errors.Later if at.startswith(f"{hooks.BEFORE_UPDATING}/") else errors.Retry
            raise kind(errors.ABORTED, detail, component=errors.HOOKS, element=at)
        if not answer.ok:
            words = errors.one_line(answer.words)
            detail = f"{command.argv[0]}: exit status {answer.status}{': ' if words else ''}{words}"
            raise _reject(at, errors.INVALID_ARGUMENT, detail)

    # The record. ----------------------------------------------------------------------------------

    def _done(self, point: str) -> str:
        return self._record().get(point, "")

    def _mark(self, point: str, key: str) -> None:
        data = json.dumps({**self._record(), point: key}, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)

    def _record(self) -> dict[str, str]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            return {str(k): str(v) for k, v in found.items()}
        except (ValueError, AttributeError):
            return {}


def _reject(element: str, cause: str, detail: str) -> errors.Reject:
    return errors.Reject(cause, detail, component=errors.HOOKS, element=element)
