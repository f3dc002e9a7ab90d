"""`homeport-agent status`: how this device stands, for a person in front of it without a network.

Read from what is on the device: the journal (what runs, what is being done, what was refused and
why), the specification files, the unit, the tool of the operating system, and the bulletin of the
running agent (how it gets on with the service, how the applications are). Nothing is changed, no
lock is taken, no network is used; what cannot be had is left out or said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from agent import (
    bulletin,
    config,
    errors,
    health,
    holding,
    journal,
    osimage,
    settings,
    specs,
    states,
    system,
    version,
    world,
)
from resources import ages, timestamps

Json = dict[str, Any]

QUICK_S = 10.0
COLUMN = 13


def gather(where: world.World, given: config.Settings | None, trouble: str = "") -> Json:
    """Everything, as `-o json` prints it; `given` None = the configuration has `trouble`. Raises
    OSError for who may not read it."""
    bounds = settings.LoopSettings(data_dir=given.data_dir if given else config.DATA_DIR)
    records, _ = journal.parse(where.read(f"{bounds.own_dir}/journal.jsonl") or b"")
    memory = journal.fold(records)
    current, desired = (_spec(where, bounds, name) for name in (specs.CURRENT, specs.DESIRED))
    said = bulletin.read(where)
    unit = _unit(where)
    # What a dead agent left behind is no news of its applications.
    is_live = not unit or unit.get("active") in health.UP
    status = said.get("status", {}) if is_live else {}
    return {
        "device": {
            "name": said.get("device", "") or current.get("name", ""),
            "certificateUntil": said.get("certificateUntil", ""),
        },
        "agent": {"version": said.get("agentVersion", version.VERSION), "unit": unit},
        "service": {
            "server": said.get("server") or (given.management.server if given else ""),
            "trouble": trouble,
            **(said.get("contact", {}) if is_live else {}),
        },
        "runs": {**current, "since": memory.committed_at},
        "wants": desired,
        "doing": _doing(memory),
        "refused": [
            {"version": one.target.version, "why": one.failure.message(one.target.version)}
            for one in reversed(memory.refusals)
        ],
        "holds": _holds(where),
        "system": _system(where, bounds),
        "applications": status.get("applications", []),
        "conditions": status.get("conditions", []),
        "summary": status.get("summary", {}),
        "at": said.get("at", "") if is_live else "",
    }


def lines(standing: Json, now: datetime) -> list[str]:
    """The same for people."""
    device, service = standing["device"], standing["service"]
    until = device["certificateUntil"]
    return [
        _row("device", device["name"] or "not known yet: it has no specification", *_until(until)),
        _row("agent", standing["agent"]["version"], *_of_unit(standing["agent"]["unit"])),
        _row("service", service["server"], *_of_contact(service, now)),
        _row("runs", *_of_spec(standing["runs"])),
        *_wanted(standing),
        _row("does", standing["doing"]["words"]),
        *(_row("held", _held(one, now)) for one in standing["holds"]),
        *(_row("refused", one["why"]) for one in standing["refused"]),
        *_of_system(standing["system"]),
        *_of_status(standing),
    ]


def _spec(where: world.World, given: settings.LoopSettings, name: str) -> Json:
    try:
        document = json.loads(where.read(f"{given.data_dir}/{name}") or b"{}")
    except ValueError:
        return {"trouble": f"{name} is damaged; the agent will put it right when it starts"}
    if not isinstance(document, dict):
        return {}
    spec = specs.parse(document)
    metadata = document.get("metadata")
    return {
        "name": str(metadata.get("name") or "") if isinstance(metadata, dict) else "",
        "version": spec.target.version,
        "template": str(
            specs.annotations_of(document).get("fleet-controller/renderedTemplateVersion", "")
        ),
        "osImage": spec.os_image,
        "files": len(spec.files),
        "applications": [one.name for one in spec.applications],
    }


def _unit(where: world.World) -> Json:
    """Empty where there is no systemd to ask."""
    answer = where.run(health.show_argv(), timeout_s=QUICK_S)
    if not answer.ok:
        return {}
    found = health.properties(answer.stdout)
    return {
        "active": found.get("ActiveState", ""),
        "enabled": found.get("UnitFileState", ""),
        "since": found.get("ActiveEnterTimestamp", ""),
        "restarts": found.get("NRestarts", ""),
        "says": found.get("StatusText", ""),
        "result": found.get("Result", ""),
    }


def _holds(where: world.World) -> list[Json]:
    found, trouble = holding.Holds(where).current()
    holds = [
        {"owner": one.owner, "reason": one.reason, "until": timestamps.of(one.until)}
        for one in found
    ]
    return [*holds, {"trouble": trouble}] if trouble else holds


def _held(hold: Json, now: datetime) -> str:
    if "trouble" in hold:
        return str(hold["trouble"])
    reason = f": {hold['reason']}" if hold["reason"] else ""
    return f"by {hold['owner']} until {hold['until']} ({_ago(hold['until'], now)}){reason}"


def _system(where: world.World, bounds: settings.LoopSettings) -> Json:
    found = system.System(where, bounds)
    slots, trouble = found.slots_or_trouble()
    if trouble is not None:
        return {"mode": found.mode, "trouble": trouble.detail}
    if slots is None:
        return {"mode": found.mode}
    return {
        "mode": found.mode,
        "booted": osimage.name_of(slots.booted) if slots.booted else "",
        "staged": osimage.name_of(slots.staged) if slots.staged else "",
        "rollback": osimage.name_of(slots.rollback) if slots.rollback else "",
    }


def _doing(memory: journal.Memory) -> Json:
    state = memory.state
    target = states.target_of(state)
    return {
        "state": type(state).__name__,
        "version": target.version if target else "",
        "words": words_of(state, memory.committed),
        "steps": memory.steps_in_target,
        "boots": memory.boots_without_commit,
    }


def words_of(state: states.State, committed: states.Target | None) -> str:
    kept = f"version {committed.version}" if committed else "what it found"
    match state:
        case states.Idle():
            return f"keeps the device as {kept} says" if committed else "waits to be told"
        case states.Fetching(target, attempt):
            again = f", attempt {attempt + 1}" if attempt else ""
            return f"downloads what version {target.version} needs{again}"
        case states.Staging(target):
            return f"checks whether version {target.version} can work here"
        case states.Staged(target):
            return f"is ready for version {target.version} and waits for its time"
        case states.Applying(target):
            again = f", tried {state.stumbles} times" if state.stumbles else ""
            return f"changes the device to version {target.version}{again}"
        case states.Rebooting(target):
            way = "back from" if state.failure else "for"
            return (
                f"reboots into {state.image or 'the other system'}, {way} version {target.version}"
            )
        case states.Verifying(target):
            return f"watches whether version {target.version} stays well"
        case states.RollingBack(target, failure):
            return f"goes back to {kept}: {failure.message(target.version)}"
        case states.Refused(target):
            return f"keeps the device as {kept} says; version {target.version} was refused"
        case states.Decommissioning():
            return "leaves its service for good"


def _row(name: str, *parts: str) -> str:
    return f"{name:<{COLUMN}}{', '.join(part for part in parts if part)}".rstrip()


def _until(text: str) -> Iterable[str]:
    return (f"certificate until {text}",) if text else ()


def _of_unit(unit: Json) -> Iterable[str]:
    if not unit:
        yield "systemd was not asked: it does not answer"
        return
    if unit["active"] in health.UP:
        yield f"running since {unit['since']}"
    else:
        yield f"NOT RUNNING: {unit['active'] or 'no such unit'}"
        yield f"last result {unit['result']}" if unit["result"] else ""
    restarts = unit["restarts"]
    yield f"restarted {restarts} times" if restarts not in ("", "0") else ""
    yield f"{unit['enabled'] or 'not'} at boot" if unit["enabled"] != "enabled" else ""


def _of_contact(service: Json, now: datetime) -> Iterable[str]:
    yield service["trouble"]
    match service.get("state"):
        case bulletin.CONNECTED:
            yield f"connected, last answer {_ago(service['lastAnswerAt'], now)}"
        case bulletin.FAILING:
            last = service.get("lastAnswerAt")
            yield f"OUT OF REACH: {service.get('why', '')}"
            yield f"last answer {_ago(last, now)}" if last else "no answer since the agent started"
            yield _next(service, now)
        case bulletin.ASKING:
            yield "asked, and not answered yet"
        case bulletin.ENROLLING:
            yield f"not enrolled: {service.get('why') or 'it has only begun to ask'}"
            yield _next(service, now)
        case _:
            yield "not known: no agent that runs has said"


def _next(service: Json, now: datetime) -> str:
    return f"tries again {_ago(service['nextAt'], now)}" if service.get("nextAt") else ""


def _of_spec(spec: Json) -> Iterable[str]:
    if spec.get("trouble"):
        yield spec["trouble"]
        return
    if spec.get("version") in (None, "", specs.NOTHING):
        yield "no specification yet"
        return
    yield f"version {spec['version']}"
    yield f"template {spec['template']}" if spec["template"] else ""
    yield f"since {spec['since']}" if spec.get("since") else ""
    yield f"{spec['files']} file{'' if spec['files'] == 1 else 's'}"
    yield f"applications {', '.join(spec['applications'])}" if spec["applications"] else ""
    yield f"system {spec['osImage']}" if spec["osImage"] else ""


def _wanted(standing: Json) -> Iterable[str]:
    if standing["wants"].get("version") != standing["runs"].get("version"):
        yield _row("wants", *_of_spec(standing["wants"]))


def _of_system(found: Json) -> Iterable[str]:
    if found.get("trouble"):
        yield _row("system", found["mode"], f"DOES NOT ANSWER: {found['trouble']}")
    elif found["mode"] == osimage.PACKAGE:
        yield _row("system", "made of packages: only files and applications are managed")
    else:
        staged = f"{found['staged']} at the next boot" if found["staged"] else ""
        back = f"{found['rollback']} to go back to" if found["rollback"] else ""
        yield _row("system", found["mode"], f"{found['booted']} booted", staged, back)


def _of_status(standing: Json) -> Iterable[str]:
    for one in standing["applications"]:
        restarts = one.get("restarts")
        yield _row(
            "application",
            f"{one.get('name')}: {one.get('status')}",
            f"{one.get('ready')} ready" if one.get("ready") else "",
            f"restarted {restarts} times" if restarts else "",
        )
    for one in standing["conditions"]:
        if one.get("message"):
            yield _row("condition", f"{one['type']} {one['reason']}: {one['message']}")
    summary = standing["summary"]
    if summary:
        words = f": {summary['info']}" if summary.get("info") else ""
        yield _row("summary", f"{summary.get('status')}{words}")


def _ago(text: str, now: datetime) -> str:
    """`12 s ago`, `in 3 min`; the text itself where it is no time."""
    moment = ages.moment(text)
    if moment is None:
        return errors.one_line(text)
    seconds = int((moment - now).total_seconds())
    size = abs(seconds)
    for unit, least in (("days", 172_800), ("hours", 7200), ("min", 120), ("s", 0)):
        if size >= least:
            span = size // {"days": 86_400, "hours": 3600, "min": 60, "s": 1}[unit]
            break
    return f"in {span} {unit}" if seconds > 0 else f"{span} {unit} ago"
