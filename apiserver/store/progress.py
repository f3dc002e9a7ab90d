"""How far the devices of a fleet are with a rollout: one statement over them, whatever is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apiserver.store import outdating, wants
from apiserver.store.rolling import LATELY, MINUTE_S, REFUSED_BEFORE, names_of
from apiserver.store.statements import run

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.rolling import Attempt
    from apiserver.store.snapshot import Snapshot

# Of a hundred thousand devices that each say it in other words, so many.
MESSAGES = 1_000
_STATES = (
    *("total", "bound", "rendered", "refused", "done", "failed", "timedOut", "disconnected"),
    *("blocked", "waiting", "misjudged"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of the fleet's devices by how far they are, all of them and those of each batch; and
    when, in seconds since 1970, the first of those that are waited for was bound, and the first of
    those that were given something within a minute.

    blocked: several fleets want it, or it is left alone since a restore, so it is in none of the
    other states; bound: the template version is the target's; rendered: its agent is given it;
    refused: none could be made for it, so it is not bound; done: it runs it; failed: it said that
    this version failed, or none could be made for it; timedOut: it was bound before the cutoff, and
    is neither; disconnected: bound, none of these, and away (architecture §5); waiting: something
    from outside that it needs is being fetched, or does not come just now; misjudged: its mark of
    being behind is wrong.
    """

    all: Mapping[str, int]
    batches: Mapping[int, Mapping[str, int]]
    first_open_at: float | None
    first_given_at: float | None


def counted(
    snapshot: Snapshot,
    attempt: Attempt,
    *,
    now: float,
    timeout_s: float,
    is_paced: bool,
    has_budget: bool,
) -> Progress:
    """In one statement. With `is_paced` who waits for his minute is not late: he will have it, as
    long as anybody is given something; under a budget it may be that nobody is."""
    names = names_of(attempt) | {"cutoff": now - timeout_s, "minute_ago": now - MINUTE_S}
    waits_rightly = is_paced and (not has_budget or _is_flowing(snapshot, names))
    states = _states(snapshot.dialect, waits_rightly=waits_rightly)
    sums = ", ".join(
        f'coalesce(sum(CASE WHEN {sql} THEN 1 ELSE 0 END), 0) AS "{state}"'
        for state, sql in states.items()
        if state != "open"
    )
    rows = run(
        snapshot.connection,
        f"SELECT CASE WHEN {_MEMBER} THEN rollout_batch END AS batch, count(*) AS total, {sums},"
        f" min(CASE WHEN {states['open']} THEN bound_at END) AS first_open_at,"
        f" min(CASE WHEN {LATELY} THEN bound_at END) AS first_given_at"
        " FROM device d WHERE namespace = :namespace AND fleet = :fleet AND decommissioning = 0"
        " GROUP BY 1",
        names,
    ).mappings()
    everybody, batches = dict.fromkeys(_STATES, 0), {}
    firsts: dict[str, list[float]] = {"first_open_at": [], "first_given_at": []}
    for row in rows:
        counts = {state: int(row[state]) for state in _STATES}
        if row["batch"] is not None:
            batches[int(row["batch"])] = counts
        for state, number in counts.items():
            everybody[state] += number
        for name, found in firsts.items():
            found += [] if row[name] is None else [float(row[name])]
    earliest = {name: min(found, default=None) for name, found in firsts.items()}
    return Progress(everybody, dict(sorted(batches.items())), **earliest)


_MEMBER = "(rollout = :rollout AND rollout_batch IS NOT NULL)"


def _is_flowing(snapshot: Snapshot, names: Mapping[str, Any]) -> bool:
    """Whether anybody was given something within the update timeout."""
    found = run(
        snapshot.connection,
        "SELECT name FROM device WHERE namespace = :namespace AND fleet = :fleet"
        " AND rollout = :rollout AND render_needed = 0"
        " AND rendered_template_version = :template AND bound_at >= :cutoff LIMIT 1",
        names,
    )
    return found.first() is not None


def _states(dialect: Dialect, *, waits_rightly: bool) -> dict[str, str]:
    """SQL for what is counted of `d`."""
    is_one = "(candidates IS NULL AND pause = 0)"
    held = "(render_needed = 1 AND coalesce(rollout, '') <> :rollout)"
    ours = "coalesce(rollout, '') = :rollout"
    # Nothing here may be NULL, for NOT NULL is not true.
    again = (
        f"({ours} AND failed_version > 0 AND failed_version = rendered_version"
        " AND coalesce(failed_digest, '') = coalesce(rendered_digest, '?')"
        " AND render_needed = 0 AND rollout_retry < :retry)"
    )
    again = f"({again} OR {REFUSED_BEFORE})"
    reached = (
        f"({is_one} AND coalesce(template_version, '') = :template AND NOT {held} AND NOT {again})"
    )
    given = "coalesce(rendered_template_version, '') = :template"
    rendered = f"({reached} AND render_needed = 0 AND {given})"
    done = f"({rendered} AND reported_version = rendered_version)"
    broken = f"({is_one} AND {ours} AND {wants.broken('d')} AND NOT {REFUSED_BEFORE})"
    refused = f"({broken} AND {wants.refused('d')} AND NOT {rendered})"
    bound = f"({reached} AND NOT {refused})"
    went_back = f"({rendered} AND failed_version = rendered_version)"
    failed = f"(NOT {done} AND ({went_back} OR {broken}))"
    waits = " AND render_needed = 0" if waits_rightly else ""
    open_ = f"({_MEMBER} AND {is_one} AND NOT {done} AND NOT {failed} AND NOT {again}{waits})"
    late = f"({open_} AND bound_at < :cutoff)"
    away = f"({bound} AND connected = 0 AND NOT {done} AND NOT {failed} AND NOT {late})"
    return {
        "bound": bound,
        "rendered": rendered,
        "refused": refused,
        "done": done,
        "failed": failed,
        "timedOut": late,
        "disconnected": away,
        "blocked": f"NOT {is_one}",
        "waiting": f"({is_one} AND {ours} AND {wants.waiting('d')})",
        "misjudged": f"behind <> {outdating.behind(dialect)}",
        "open": f"({open_} AND bound_at >= :cutoff)",
    }


def failures(snapshot: Snapshot, attempt: Attempt) -> list[dict[str, Any]]:
    """The messages by which devices said that they failed, the most frequent first."""
    rows = run(
        snapshot.connection,
        "SELECT failed_reason AS cause, count(*) AS n, min(name) AS example FROM device"
        " WHERE namespace = :namespace AND fleet = :fleet AND template_version = :template"
        " AND failed_version = rendered_version AND reported_version <> rendered_version"
        " AND failed_version > 0 AND decommissioning = 0"
        " GROUP BY failed_reason ORDER BY n DESC, cause LIMIT :limit",
        names_of(attempt) | {"limit": MESSAGES},
    )
    return [{"cause": r.cause or "", "count": r.n, "example": r.example} for r in rows]
