"""Does an application live?

With a health check, the check must succeed; without one, the container must run. Either must last
for a while without a failure or a restart. An application that ended by itself with success, or
that shall be stopped and is, is well. Everything else is "not yet", with the words that a person
needs should it stay so: the last output of the health check, or the last lines of the log.

What it remembers (since when an application has been well) is lost with the process; the wait
then begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent import appplan, errors, helm, planner, podman, settings, specs, systemd, workloads, world
from agent.accounts import Accounts
from agent.appplan import Workload
from agent.machine import Verdict

Names = Mapping[str, tuple[str, ...]]

HEALTHCHECK_S = 10.0
LOGS_S = 10.0


class Verifier:
    def __init__(
        self, where: world.World, bounds: settings.LoopSettings, accounts: Accounts
    ) -> None:
        self._world = where
        self._accounts = accounts
        self._bounds = bounds
        # workload -> (what would change with a restart, since when it has not)
        self._since: dict[tuple[str, str], tuple[tuple[str, str, int], float]] = {}

    def verdict(self, spec: specs.Spec, observed: planner.Observed, wanted: Names) -> Verdict:
        """The worst; `wanted`: application -> the workloads that it must have.

        All are looked at each time, for the clocks of those that are starting run side by side.
        """
        verdicts = []
        for app in spec.applications:
            found = {workload.name: workload for workload in workloads.of(app, observed)}
            # Which pods a chart has, only the cluster knows.
            names = wanted.get(app.name) or tuple(found)
            verdicts += [self._one(app, name, found.get(name)) for name in names]
        unwell = [verdict for verdict in verdicts if not verdict.is_well]
        return min(unwell, key=lambda verdict: verdict.is_proving, default=Verdict(True))

    def check(self, container: str, user: str = "") -> tuple[bool, str]:
        """One run of the container's own health check: did it succeed, what did it say."""
        argv = podman.healthcheck_argv(container)
        answer = self._accounts.run(user, argv, timeout_s=HEALTHCHECK_S)
        if answer.ok:
            return True, ""
        if answer.status == world.TIMED_OUT:
            return False, f"no answer within {HEALTHCHECK_S:.0f} s"
        return False, self._said(container, user)

    def _said(self, container: str, user: str) -> str:
        argv = podman.inspect_argv([container])
        answer = self._accounts.run(user, argv, timeout_s=LOGS_S)
        try:
            found = podman.containers(answer.stdout, started={}, boot_id="")
        except ValueError:
            return ""
        return found[0].health_output if found else ""

    def _one(self, app: specs.Application, name: str, found: Workload | None) -> Verdict:
        if app.is_stopped and app.app_type == helm.HELM:
            # What has no scale goes on.
            return Verdict(True)
        if app.is_stopped:
            is_down = found is None or found.state not in appplan.UP
            return Verdict(True) if is_down else Verdict(None, app.name, detail="not stopped yet")
        if found is None:
            return Verdict(None, app.name, detail=f"{name} does not run")
        if found.state == appplan.COMPLETED:
            return Verdict(True)
        if found.why or found.state not in appplan.UP:
            return Verdict(None, app.name, detail=self._why_down(found))
        if found.has_healthcheck:
            is_healthy, said = self.check(found.container, found.user)
            if not is_healthy:
                self._since.pop(_key(found), None)
                words = f"health check failed: {said}" if said else "health check failed"
                return Verdict(None, app.name, detail=words)
        return self._stable(app, found)

    def _stable(self, app: specs.Application, found: Workload) -> Verdict:
        now = self._world.monotonic()
        mark = (found.container, found.began, found.restarts)
        known = self._since.get(_key(found))
        if known is None or known[0] != mark:
            known = (mark, now)
            self._since[_key(found)] = known
        if now - known[1] >= self._bounds.stability_s:
            return Verdict(True)
        detail = f"restarted {found.restarts} times" if found.restarts else "just started"
        if found.restarts:
            detail += self._last_lines(found)
        return Verdict(None, app.name, detail=detail, is_proving=True)

    def _why_down(self, found: Workload) -> str:
        return (found.why or found.state) + self._last_lines(found)

    def _last_lines(self, found: Workload) -> str:
        if found.name.endswith(".service"):
            account = self._accounts.of(found.user)
            argv = systemd.journal_argv(found.name, account.uid if account is not None else None)
            answer = self._world.run(argv, timeout_s=LOGS_S)
            lines = errors.one_line(systemd.last_words(answer.stdout)) if answer.ok else ""
            return f": {lines}" if lines else ""
        if not found.container:
            return ""
        answer = self._world.run(podman.logs_argv(found.container), timeout_s=LOGS_S)
        # Workloads complain on either stream; podman keeps them apart.
        lines = errors.one_line(f"{answer.stdout} {answer.stderr}") if answer.ok else ""
        return f": {lines}" if lines else ""


def _key(workload: Workload) -> tuple[str, str]:
    return workload.user, workload.name
