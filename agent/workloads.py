"""What runs for an application, as podman and systemd say, and what to call that for the service.

Each kind of application comes down to workloads: one container, the containers of a Compose
project, the services of quadlets. From there on there is one table for all, the contract's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent import appplan, errors, helm, planner, podman, specs, systemd
from agent.appplan import Workload

Json = dict[str, Any]

HEALTHY = "healthy"


def of_container(found: planner.Container, name: str = "") -> Workload:
    return Workload(
        name or found.name,
        _state_of(found),
        container=found.container,
        restarts=found.restarts,
        began=found.started_at,
        has_healthcheck=found.has_healthcheck,
        why="" if found.state == "running" else _why(found),
    )


def _state_of(found: planner.Container) -> str:
    if found.state in planner.FRESH or found.state == "restarting":
        return appplan.STARTING
    if found.state == "running":
        if not found.has_healthcheck or found.health == HEALTHY:
            return appplan.RUNNING
        return appplan.STARTING if found.health in ("", "starting") else appplan.UNHEALTHY
    if found.state == "paused":
        return appplan.UNHEALTHY
    if found.state == "stopping":
        return appplan.STOPPING
    ended = found.state in ("exited", "stopped") and found.exit_code == 0
    return appplan.COMPLETED if ended else appplan.FAILED


def _why(found: planner.Container) -> str:
    words = f"{found.state} with status {found.exit_code}"
    if found.restarts:
        words += f" after {found.restarts} restarts"
    return f"{words}: {errors.one_line(found.trouble)}" if found.trouble else words


def of_unit(unit: systemd.Unit, container: planner.Container | None) -> Workload | None:
    """None = there is no such service, or it was never started since the machine was."""
    if unit.load in ("not-found", "") or (unit.active == "inactive" and not unit.has_run):
        return None
    state, why = appplan.FAILED, f"{unit.active} ({unit.result})"
    if unit.result == "exit-code":
        why = f"{unit.active} with status {unit.status}"
    if unit.restarts:
        why = f"does not stay up: {unit.restarts} restarts"
    if unit.is_up:
        state, why = appplan.RUNNING, ""
        if container is not None and container.has_healthcheck:
            state = _state_of(container)
    elif unit.is_coming:
        state = appplan.CRASHING if unit.sub.startswith("auto-restart") else appplan.STARTING
    elif unit.active == "deactivating":
        state = appplan.STOPPING
    elif unit.is_complete:
        state, why = appplan.COMPLETED, ""
    return Workload(
        unit.name,
        state,
        container=container.container if container else "",
        restarts=unit.restarts,
        began=container.started_at if container else "",
        has_healthcheck=bool(container and container.has_healthcheck),
        why=why,
    )


def of(app: specs.Application, observed: planner.Observed) -> tuple[Workload, ...]:
    """What there is of `app`."""
    is_chart = app.app_type == helm.HELM
    app_id = helm.app_id(app) if is_chart else podman.app_id(app.name, app.run_as)
    for found in observed.apps:
        if found.app_id == app_id:
            return found.workloads
    name = podman.container_name(app)
    return tuple(of_container(c) for c in observed.containers if c.is_ours and c.name == name)


def status_of(found: Iterable[Workload], *, is_stopped: bool) -> tuple[str, str]:
    """(status, summary) by the contract's table; the first row that fits counts."""
    states = [workload.state for workload in found]
    total = len(states)
    up = states.count(appplan.RUNNING)
    sick = states.count(appplan.UNHEALTHY)
    coming = states.count(appplan.STARTING)
    going = states.count(appplan.STOPPING)
    done = states.count(appplan.COMPLETED)
    ended = done + states.count(appplan.FAILED) + states.count(appplan.CRASHING)
    if is_stopped:
        return ("Stopped", "Healthy") if ended == total else ("Stopping", "Degraded")
    if not total:
        return "Unknown", "Unknown"
    if coming:
        return ("Starting", "Degraded") if up else ("Preparing", "Unknown")
    if done == total:
        return "Completed", "Healthy"
    if up and up + done == total:
        return "Running", "Healthy"
    if (sick and up + sick + ended + going == total) or up:
        return "Running", "Degraded"
    return "Error", "Error"


def applications(spec: specs.Spec, observed: planner.Observed) -> tuple[list[Json], Json]:
    """(`status.applications`, `status.applicationsSummary`)."""
    listed: list[Json] = []
    summaries: list[tuple[str, str, str]] = []
    for app in sorted(spec.applications, key=lambda a: a.name):
        found = of(app, observed)
        status, summary = status_of(found, is_stopped=app.is_stopped)
        up = sum(workload.state == appplan.RUNNING for workload in found)
        entry: Json = {
            "name": app.name,
            "appType": app.app_type,
            "status": status,
            "ready": f"{up}/{len(found)}",
            "restarts": sum(workload.restarts for workload in found),
            "embedded": app.is_embedded,
            "runAs": app.run_as,
        }
        volumes = [{"name": v.name, "reference": v.image} for v in app.volumes if v.image]
        listed.append({**entry, **({"volumes": volumes} if volumes else {})})
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
