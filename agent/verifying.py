"""Does an application live? And what to call its state for the service.

With a health check, the check must succeed; without one, the container must run for a while without
a restart. An application that ended by itself with success, or that shall be stopped and is, is
well. Everything else is "not yet", with the words that a person needs should it stay so: the last
output of the health check, or the last lines of the log.

What it remembers (since when a container runs without a restart) is lost with the process; the wait
then begins anew.
"""

from __future__ import annotations

from typing import Any

from agent import errors, planner, podman, settings, specs, world
from agent.machine import Verdict

Json = dict[str, Any]

HEALTHCHECK_S = 10.0
LOGS_S = 10.0
HEALTHY = "healthy"


class Verifier:
    def __init__(self, where: world.World, bounds: settings.LoopSettings) -> None:
        self._world = where
        self._bounds = bounds
        # container -> (what would change with a restart, since when it has not)
        self._since: dict[str, tuple[tuple[str, int], float]] = {}

    def verdict(self, spec: specs.Spec, containers: tuple[planner.Container, ...]) -> Verdict:
        """The worst of all applications."""
        unknown: Verdict | None = None
        for app in spec.applications:
            found = container_of(app, containers)
            verdict = self._one(app, found)
            if verdict.is_well is False:
                return verdict
            if verdict.is_well is None:
                unknown = unknown or verdict
        return unknown or Verdict(True)

    def check(self, container: planner.Container) -> tuple[bool, str]:
        """One run of the container's own health check: did it succeed, what did it say."""
        answer = self._world.run(
            podman.healthcheck_argv(container.container), timeout_s=HEALTHCHECK_S
        )
        if answer.ok:
            return True, ""
        if answer.status == world.TIMED_OUT:
            return False, f"no answer within {HEALTHCHECK_S:.0f} s"
        return False, self._said(container.container)

    def _said(self, container: str) -> str:
        answer = self._world.run(podman.inspect_argv([container]), timeout_s=LOGS_S)
        try:
            found = podman.containers(answer.stdout, started={}, boot_id="")
        except ValueError:
            return ""
        return found[0].health_output if found else ""

    def _one(self, app: specs.Application, found: planner.Container | None) -> Verdict:
        if app.is_stopped:
            is_down = found is not None and found.state not in planner.RUNNING
            return Verdict(True) if is_down else Verdict(None, app.name, detail="not stopped yet")
        if found is None:
            return Verdict(None, app.name, detail="there is no container")
        if planner.is_complete(found):
            return Verdict(True)
        if found.state != "running":
            return Verdict(None, app.name, detail=self._why_down(found))
        if found.has_healthcheck:
            is_healthy, said = self.check(found)
            words = f"health check failed: {said}" if said else "health check failed"
            return Verdict(True) if is_healthy else Verdict(None, app.name, detail=words)
        return self._stable(app, found)

    def _stable(self, app: specs.Application, found: planner.Container) -> Verdict:
        now = self._world.monotonic()
        mark = (found.started_at, found.restarts)
        known = self._since.get(found.container)
        if known is None or known[0] != mark:
            known = (mark, now)
            self._since[found.container] = known
        if now - known[1] >= self._bounds.stability_s:
            return Verdict(True)
        detail = f"restarted {found.restarts} times" if found.restarts else "just started"
        if found.restarts:
            detail += self._last_lines(found)
        return Verdict(None, app.name, detail=detail)

    def _why_down(self, found: planner.Container) -> str:
        words = f"{found.state} with status {found.exit_code}"
        if found.restarts:
            words += f" after {found.restarts} restarts"
        if found.trouble:
            return f"{words}: {errors.one_line(found.trouble)}"
        return words + self._last_lines(found)

    def _last_lines(self, found: planner.Container) -> str:
        answer = self._world.run(podman.logs_argv(found.container), timeout_s=LOGS_S)
        # Workloads complain on either stream; podman keeps them apart.
        lines = errors.one_line(f"{answer.stdout} {answer.stderr}") if answer.ok else ""
        return f": {lines}" if lines else ""


def container_of(
    app: specs.Application, containers: tuple[planner.Container, ...]
) -> planner.Container | None:
    name = podman.container_name(app)
    return next((c for c in containers if c.is_ours and c.name == name), None)


# (status, summary) of an application by the state of its one container.
RUNNING = ("Running", "Healthy")
UNHEALTHY = ("Running", "Degraded")
PREPARING = ("Preparing", "Unknown")
COMPLETED = ("Completed", "Healthy")
STOPPED = ("Stopped", "Healthy")
STOPPING = ("Stopping", "Degraded")
UNKNOWN = ("Unknown", "Unknown")
FAILED = ("Error", "Error")


def state_of(app: specs.Application, found: planner.Container | None) -> tuple[str, str]:
    """The table of the contract, for applications of one container."""
    is_up = found is not None and found.state in planner.RUNNING
    if app.is_stopped:
        return STOPPING if is_up else STOPPED
    if found is None:
        return UNKNOWN
    if found.state in planner.FRESH or found.state == "restarting":
        return PREPARING
    if found.state == "running":
        if not found.has_healthcheck or found.health == HEALTHY:
            return RUNNING
        return PREPARING if found.health in ("", "starting") else UNHEALTHY
    if found.state in ("paused", "stopping"):
        return FAILED if found.state == "stopping" else UNHEALTHY
    return COMPLETED if found.exit_code == 0 else FAILED


def applications(
    spec: specs.Spec, containers: tuple[planner.Container, ...]
) -> tuple[list[Json], Json]:
    """(`status.applications`, `status.applicationsSummary`)."""
    listed: list[Json] = []
    summaries: list[tuple[str, str, str]] = []
    for app in sorted(spec.applications, key=lambda a: a.name):
        found = container_of(app, containers)
        status, summary = state_of(app, found)
        total = 0 if found is None else 1
        healthy = 1 if (status, summary) == RUNNING else 0
        listed.append(
            {
                "name": app.name,
                "appType": app.app_type,
                "status": status,
                "ready": f"{healthy}/{total}",
                "restarts": found.restarts if found else 0,
                "embedded": False,
                "runAs": app.run_as,
            }
        )
        summaries.append((app.name, status, summary))
    return listed, _summary(summaries)


def _summary(found: list[tuple[str, str, str]]) -> Json:
    if not found:
        return {"status": "NoApplications"}
    words = [f"{n} is in status {k}" for n, _, k in found if k == "Error"]
    words += [f"{n} is in status {k}" for n, _, k in found if k == "Degraded"]
    words += [f"Not started: {n}" for n, _, k in found if k == "Unknown"]
    if any(k == "Error" for _, _, k in found):
        worst = "Error"
    else:
        worst = "Degraded" if words else "Healthy"
    info = errors.shortened("; ".join(words), errors.MESSAGE_CHARS_MAX)
    return {"status": worst, **({"info": info} if info else {})}
