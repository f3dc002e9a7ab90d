"""Which of a fleet's Rollouts counts, and which one follows it. Pure; names and order.

An attempt is named after what it brings, and numbered: `web.v3-1`, `web.v3-2`. It is taken back by
an attempt that brings an earlier version again and says so, `web.v2-2` with `reverts: web.v3-1`.
The current attempt of a fleet is the last that brings its newest version, or what took that back.
Whoever makes the next one finds its name here, so that two who see the same make the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

ENDED: Final = ("Completed", "Failed", "Aborted")
TOO_MANY_FAILURES: Final = "TooManyFailures"
# Of a policy, what holds on the way back too: it is for the good of what the devices do.
_ON_THE_WAY_BACK = ("disruptionBudget", "defaultUpdateTimeout")
_NUMBERED = re.compile(r".*\.v(\d+)(?P<changed>-[0-9a-f]{8})?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Next:
    """An attempt that is to be made."""

    name: str
    target: Json


def version_number(version: str) -> int:
    """3 of `web.v3` and of `web.v3-1a2b3c4d`; 0 for names that are not ours."""
    found = _NUMBERED.fullmatch(version)
    return int(found[1]) if found else 0


def follows_a_source(version: str) -> bool:
    """Whether a version of this name was made because something outside had changed."""
    found = _NUMBERED.fullmatch(version)
    return found is not None and found["changed"] is not None


def name_of(rollout: Mapping[str, Any]) -> str:
    return str(rollout["metadata"]["name"])


def number_of(rollout: Mapping[str, Any]) -> int:
    """2 of `web.v3-2`."""
    text = name_of(rollout).rpartition("-")[2]
    return int(text) if text.isdigit() else 0


def brings(rollout: Mapping[str, Any]) -> str:
    """The name of the template version."""
    return str(rollout["spec"]["target"]["templateVersion"])


def has_ended(rollout: Mapping[str, Any]) -> bool:
    return (rollout.get("status") or {}).get("phase") in ENDED


def current(rollouts: Collection[Json], newest: str | None = None) -> Json | None:
    """Of the rollouts of one fleet, the one that counts; `newest` is the fleet's newest version,
    without it the newest that a rollout brings."""
    onward = [r for r in rollouts if not _reverts(r)]
    if newest is None and onward:
        newest = brings(max(onward, key=_age_of_version))
    found = max((r for r in onward if brings(r) == newest), key=number_of, default=None)
    # Each takes back one that was there before it, so the chain ends; whatever people make of it.
    for _ in rollouts:
        back = [r for r in rollouts if found and _reverts(r) == name_of(found)]
        if not back:
            break
        found = max(back, key=number_of)
    return found


def _age_of_version(rollout: Mapping[str, Any]) -> tuple[int, str, int]:
    stored = str(rollout["metadata"].get("creationTimestamp") or "")
    return version_number(brings(rollout)), stored, number_of(rollout)


def _reverts(rollout: Mapping[str, Any]) -> str:
    return str(rollout["spec"]["target"].get("reverts") or "")


def last_good(rollouts: Iterable[Json], but: str, there: Collection[str] | None = None) -> str:
    """The version whose rollout ended well last, other than `but`, and of those that are `there`
    where that is given; "" if there is none."""
    good = [
        r
        for r in rollouts
        if (r.get("status") or {}).get("phase") == "Completed"
        and brings(r) != but
        and (there is None or brings(r) in there)
    ]
    return brings(max(good, key=_ended_at)) if good else ""


def _ended_at(rollout: Mapping[str, Any]) -> tuple[str, tuple[int, str, int]]:
    return str(rollout["status"].get("finishedAt") or ""), _age_of_version(rollout)


def policy_of(policy: Json | None, reverts: str) -> Json | None:
    """What an attempt goes by, from its fleet's policy. On the way back nobody waits for a batch:
    what is left of it is the disruption budget."""
    if not reverts:
        return policy or None
    if not (policy or {}).get("disruptionBudget"):
        return None
    return {key: value for key, value in (policy or {}).items() if key in _ON_THE_WAY_BACK}


def first(rollouts: Sequence[Json], fleet: str, version: str, policy: Json | None) -> Next:
    """An attempt to bring `version`, after those that there are."""
    return _next(rollouts, fleet, version, policy, {})


def again(rollouts: Sequence[Json], rollout: Json, policy: Json | None) -> Next:
    """An attempt to do the same as `rollout`, by another policy or once more."""
    target = rollout["spec"]["target"]
    kept = {"reverts": target["reverts"]} if target.get("reverts") else {}
    return _next(rollouts, target["fleet"], brings(rollout), policy, kept)


def follower(
    rollouts: Sequence[Json], rollout: Json, there: Collection[str], policy: Json | None
) -> Next | None:
    """What is asked to follow the current attempt: one that takes it back, or that tries it again;
    None if nothing is. `there` are the fleet's versions."""
    if wants_back(rollout):
        version = last_good(rollouts, brings(rollout), there)
        if version:
            said = {"reverts": name_of(rollout)}
            fleet = rollout["spec"]["target"]["fleet"]
            return _next(rollouts, fleet, version, policy, said)
        return None
    if has_ended(rollout) and retries_of(rollout) > int(rollout["status"].get("retry") or 0):
        return again(rollouts, rollout, policy)
    return None


def wants_back(rollout: Mapping[str, Any]) -> bool:
    """Whether people, or the policy, want the devices of an attempt to have what they had."""
    target = rollout["spec"]["target"]
    if (rollout["spec"].get("control") or {}).get("revert"):
        return True
    if (target.get("policy") or {}).get("onTooManyFailures") != "Revert":
        return False
    return any(
        condition.get("type") == "Succeeded" and condition.get("reason") == TOO_MANY_FAILURES
        for condition in (rollout.get("status") or {}).get("conditions") or ()
    )


def retries_of(rollout: Mapping[str, Any]) -> int:
    """How often people have asked to try again what failed."""
    return int((rollout["spec"].get("control") or {}).get("retry") or 0)


def retry_in_force(rollout: Mapping[str, Any]) -> int:
    """The same, as far as it is this attempt's to do: after its end another one does it."""
    if has_ended(rollout):
        return int(rollout["status"].get("retry") or 0)
    return retries_of(rollout)


def _next(
    rollouts: Sequence[Json], fleet: str, version: str, policy: Json | None, said: Json
) -> Next:
    number = max((number_of(r) for r in rollouts if brings(r) == version), default=0) + 1
    target: Json = {"fleet": fleet, "templateVersion": version} | said
    by = policy_of(policy, str(said.get("reverts") or ""))
    if by:
        target["policy"] = by
    return Next(f"{version}-{number}", target)
