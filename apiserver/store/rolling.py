"""Devices bound to a template version: chosen by a batch, given it as a budget allows, counted.

Both gates are judged in the transaction that binds, so a repeated call, or another controller's,
passes none of them: how many a batch may still choose, and how many devices of a group may still be
disturbed, is counted from the rows as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apiserver.store import scratch, wants
from apiserver.store.sets import CHUNK, OUT_OF_DATE, UP_TO_DATE
from apiserver.store.statements import run
from resources import rollout_plan
from resources.kind import Json
from resources.selectors import EVERYTHING, LabelSelector, Requirement

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.snapshot import Snapshot, Transaction

# The fleet's devices that a rollout is for. Several fleets' are nobody's.
OURS = "d.namespace = :namespace AND d.fleet = :fleet AND d.decommissioning = 0"
MINUTE_S = 60.0
# Given what the rollout brings within the minute that ends now.
LATELY = (
    "d.render_needed = 0 AND d.rendered_template_version = :template AND d.bound_at > :minute_ago"
)
_MEMBER = "(d.rollout = :rollout AND d.rollout_batch IS NOT NULL)"
# Could not be rendered for, by this rollout and for its own inputs' sake, and is to be tried again.
# Nothing here may be NULL: progress negates it.
REFUSED_BEFORE = (
    "(coalesce(d.rollout, '') = :rollout AND d.render_error IS NOT NULL AND d.waits_for IS NULL"
    " AND d.render_needed = 0 AND d.rollout_retry < :retry)"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A Rollout by its name, and the stored template version that it brings to a fleet; `retry`:
    how often it is to try again what failed."""

    namespace: str
    fleet: str
    template_version: str
    rollout: str
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Target(Attempt):
    """The same, with what the template version renders to; `is_given`: that is another thing for
    each device, and stands in the scratch table that `givens` fills."""

    spec_digest: str = ""
    rendered_digest: str = ""
    os_image: str = ""
    is_given: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Which devices: `batch` takes those that `selector` matches, `limit` of them, by name. The
    last batch takes what is left, the devices that are away too. Without `select` only those are
    bound that are in a batch already, up to this one."""

    batch: int = 0
    is_last: bool = True
    select: bool = True
    selector: LabelSelector = EVERYTHING
    limit: int | str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How many devices may be given something: the disruption budget of a policy, if it has one,
    and how many may be in a minute; `cutoff` is the time before which an update that began and was
    not heard of since is given up."""

    policy: Json | None
    per_minute: int | None
    now: float
    cutoff: float


@dataclass(frozen=True, slots=True)
class Bound:
    """How many rows a call took, how many of those got a new version, the last one's name, and for
    how many with another specification people ask something of single applications."""

    rows: int
    rendered: int
    last: str
    wishing: int = 0


def bind(
    tx: Transaction, target: Target, choice: Choice, limit: int, after: str = "", *, held: bool
) -> Bound:
    """Bind up to `limit` (a thousand at most) devices of the fleet that are not yet, by name, from
    the first one after `after`: who binds all need not look at those again that are bound. With
    `held` their agents are not given it yet: `give` does that, as the budget allows."""
    to = _EACH if target.is_given else _ONE
    rerender, retry = _anew(tx.dialect, to)
    source, parameters = _binding(tx, target, choice, after, held=held, to=to)
    limit = min(limit, CHUNK, _room(tx, choice, parameters))
    if limit <= 0:
        return Bound(0, 0, after)
    new = _Columns(tx.dialect, rerender, retry, gives=not held)
    taken = _take(tx, new, source, parameters, limit, to)
    if not taken:
        return Bound(0, 0, after)
    batch = f"CASE WHEN {_MEMBER} THEN d.rollout_batch ELSE :batch END".replace("d.", "device.")
    columns = f"template_version = :template, rollout = :rollout, spec_digest = {to.spec}"
    member = f"rollout_batch = {batch}, rollout_retry = :retry"
    return _move(tx, target, new, [columns, member], parameters, taken)


def to_bind(
    snapshot: Snapshot, target: Target, choice: Choice, limit: int, after: str, *, held: bool
) -> list[Any]:
    """uid, name, labels and inputs_version of the devices that `bind` would take, by name."""
    source, parameters = _binding(snapshot, target, choice, after, held=held, to=_THEN)
    limit = min(limit, CHUNK, _room(snapshot, choice, parameters))
    return _looked_up(snapshot, source, parameters, limit)


def to_give(snapshot: Snapshot, target: Target, budget: Budget, limit: int) -> list[Any]:
    """The same of those that `give` would take."""
    source, parameters = _giving(snapshot, target, budget, to=_THEN)
    limit = min(limit, CHUNK, _room_in_minute(snapshot, target, budget))
    return _looked_up(snapshot, source, parameters, limit)


def _looked_up(
    snapshot: Snapshot, source: str, parameters: Mapping[str, Any], limit: int
) -> list[Any]:
    if limit <= 0:
        return []
    found = run(
        snapshot.connection,
        f"SELECT d.uid, d.name, d.labels, d.inputs_version FROM {source}"
        " ORDER BY d.name LIMIT :limit",
        dict(parameters) | {"limit": limit},
    )
    return list(found)


@dataclass(frozen=True, slots=True)
class _To:
    """SQL for what a device is to be given, and what `d` and `b` are joined with for it."""

    rendered: str
    spec: str
    os_image: str
    d: str = ""
    b: str = ""


_ONE = _To(":rendered", ":spec", ":os_image")
_EACH = _To(
    "e.rendered_digest",
    "e.spec_digest",
    "e.os_image",
    " JOIN given e ON e.uid = d.uid AND e.inputs_version = d.inputs_version",
    " JOIN given e ON e.uid = b.uid",
)
# Before anything is rendered: where nothing else asks for a bind, it would be what it was.
_THEN = _To("d.rendered_digest", "d.spec_digest", "d.os_image")


def _anew(dialect: Dialect, to: _To) -> tuple[str, str]:
    """SQL for "gets something new", and for "is to try again what failed": an agent refuses for
    good what failed; another rollout of it asks for another try, so do people, and so do other
    inputs where it could not be rendered before."""
    # Who is under way again, or held, has been asked already.
    once_more = (
        "(d.rollout_retry < :retry AND d.render_needed = 0"
        " AND d.failed_version = d.rendered_version)"
    )
    asked = f"({dialect.distinct_from('d.rollout', ':rollout')} OR {once_more})"
    if to is not _ONE:
        asked = f"({asked} OR d.render_error IS NOT NULL)"
    retry = f"(d.failed_digest = {to.rendered} AND {asked})"
    return f"({dialect.distinct_from('d.rendered_digest', to.rendered)} OR {retry})", retry


def _binding(
    snapshot: Snapshot, target: Target, choice: Choice, after: str, *, held: bool, to: _To
) -> tuple[str, dict[str, Any]]:
    """What `bind` takes from, with the parameters."""
    dialect = snapshot.dialect
    differs = dialect.distinct_from
    _, retry = _anew(dialect, to)
    other = f"{differs('d.template_version', ':template')} OR {retry}"
    if held:
        # What an attempt before this one has left held is this one's to give.
        left = f"(d.render_needed = 1 AND {differs('d.rollout', ':rollout')})"
        unbound = f"({other} OR {differs('d.spec_digest', to.spec)} OR {left})"
    else:
        rendered_other = differs("d.rendered_template_version", ":template")
        unbound = f"({other} OR d.render_needed = 1 OR {rendered_other})"
    unbound = f"({unbound} OR {REFUSED_BEFORE})"
    where, parameters = _chosen(choice)
    parameters |= _parameters(snapshot, target) | {"after": after, "batch": choice.batch}
    if to is not _ONE:
        where += f" AND NOT {_left_alone(dialect)}"
    candidates = f"d.name > :after AND d.candidates IS NULL AND d.pause = 0 AND {unbound}{where}"
    return f"device d{to.d} WHERE {OURS} AND {candidates}{_given(dialect, to)}", parameters


def _given(dialect: Dialect, to: _To) -> str:
    if to is not _EACH:
        return ""
    made = "e.render_error IS NULL AND e.waits_for IS NULL"
    return f" AND {made} AND {dialect.among('d.uid', 'SELECT uid FROM given')}"


def _left_alone(dialect: Dialect) -> str:
    """SQL for a device that this rollout could not render for, until its inputs change, what it
    waits for is there, or people ask for another try."""
    ours = f"NOT ({dialect.distinct_from('d.rollout', ':rollout')})"
    for_good = f"d.render_error IS NOT NULL AND d.render_needed = 0 AND NOT {REFUSED_BEFORE}"
    return f"(({for_good} OR {wants.waits('d')}) AND {ours})"


def give(tx: Transaction, target: Target, budget: Budget, limit: int) -> Bound:
    """Let the agents of devices have what those are bound to, as many of each group as the budget
    allows. A device that is away is not disturbed, and so not counted, and not given anything: when
    it is back, others may be under way."""
    to = _EACH if target.is_given else _ONE
    retry = f"(d.failed_digest = {to.rendered})"
    rerender = f"({tx.dialect.distinct_from('d.rendered_digest', to.rendered)} OR {retry})"
    new = _Columns(tx.dialect, rerender, retry, gives=True)
    source, parameters = _giving(tx, target, budget, to=to)
    limit = min(limit, CHUNK, _room_in_minute(tx, target, budget))
    taken = _take(tx, new, source, parameters, limit, to) if limit > 0 else 0
    if not taken:
        return Bound(0, 0, "")
    # What depends on labels may have changed since it was bound.
    columns = [f"spec_digest = {to.spec}"] if target.is_given else []
    return _move(tx, target, new, columns, parameters, taken)


def _giving(
    snapshot: Snapshot, target: Target, budget: Budget, *, to: _To
) -> tuple[str, dict[str, Any]]:
    """What `give` takes from, with the parameters."""
    dialect = snapshot.dialect
    differs = dialect.distinct_from
    waits = (
        f"d.template_version = :template AND {_MEMBER} AND d.candidates IS NULL AND d.pause = 0 AND"
        f" (d.render_needed = 1 OR {differs('d.rendered_template_version', ':template')})"
    )
    if to is not _ONE:
        waits += f" AND NOT {_left_alone(dialect)}"
    if budget.policy is None:
        source = f"device d{to.d} WHERE {OURS} AND {waits}{_given(dialect, to)}"
        return source, _parameters(snapshot, target)
    group, parameters = _group(budget.policy)
    parameters |= _parameters(snapshot, target) | {"cutoff": budget.cutoff}
    moves = f"{differs('d.reported_version', 'd.rendered_version')} AND d.rendered_version > 0"
    went_back = "(d.failed_version > 0 AND d.failed_version = d.rendered_version)"
    # One that fell silent in the middle counts until its time is over: a template that takes
    # devices off the network must not free its own way.
    silent = f"(d.connected = 0 AND {_MEMBER} AND d.bound_at >= :cutoff)"
    busy = f"({moves} AND NOT {went_back} AND (d.connected = 1 OR {silent}))"
    at_rest = f"(d.connected = 1 AND NOT {busy})"
    counted = (
        f"SELECT {group} AS k, count(*) AS total, sum(CASE WHEN {busy} THEN 1 ELSE 0 END) AS busy,"
        f" sum(CASE WHEN {at_rest} THEN 1 ELSE 0 END) AS rest FROM device d WHERE {OURS}"
        " GROUP BY 1"
    )
    # Who is being updated already is not disturbed any further by something newer.
    placed = (
        f"SELECT d.uid AS of_uid, {group} AS k, CASE WHEN {busy} THEN 0 ELSE row_number() OVER"
        f" (PARTITION BY {group}, CASE WHEN {busy} THEN 1 ELSE 0 END ORDER BY d.name) END AS place"
        f" FROM device d WHERE {OURS} AND d.connected = 1 AND {waits}"
    )
    allowed = _allowed(dialect, budget.policy, parameters)
    source = (
        f"device d{to.d} JOIN ({placed}) p ON p.of_uid = d.uid JOIN ({counted}) g ON g.k = p.k"
        f" WHERE p.place <= {dialect.greatest(allowed, '0')}{_given(dialect, to)}"
    )
    return source, parameters


def _room_in_minute(snapshot: Snapshot, target: Target, budget: Budget) -> int:
    """How many devices more may be given something in the minute that ends now."""
    if budget.per_minute is None:
        return CHUNK
    given = run(
        snapshot.connection,
        f"SELECT count(*) AS n FROM device d WHERE {OURS} AND {LATELY}",
        names_of(target) | {"minute_ago": budget.now - MINUTE_S},
    ).scalar_one()
    return max(0, budget.per_minute - int(given))


def _allowed(dialect: Dialect, policy: Json, parameters: dict[str, Any]) -> str:
    """`rollout_plan.may_disturb` in SQL, of the group `g`."""
    most = []
    if policy.get("maxUnavailable") is not None:
        parameters["max_unavailable"] = policy["maxUnavailable"]
        most.append("(:max_unavailable - g.busy)")
    if policy.get("minAvailable") is not None:
        parameters["min_available"] = policy["minAvailable"]
        most.append(f"(g.rest - {dialect.least(':min_available', '(g.total - 1)')})")
    return most[0] if len(most) == 1 else dialect.least(*most)


def _group(policy: Json) -> tuple[str, dict[str, Any]]:
    """SQL for the group that `d` belongs to: the values of some labels, or that there is none."""
    parts, parameters = ["''"], {}
    for number, key in enumerate(policy.get("groupBy") or ()):
        parameters[f"group_{number}"] = key
        value = (
            f"SELECT l.value FROM device_label l WHERE l.uid = d.uid AND l.key = :group_{number}"
        )
        # No value of a label holds a slash or an equals sign.
        parts.append(f"coalesce('/=' || ({value}), '/')")
    return "(" + " || ".join(parts) + ")", parameters


def _room(snapshot: Snapshot, choice: Choice, parameters: Mapping[str, Any]) -> int:
    """How many devices the batch may still choose; bounded by a call's own limit anyway."""
    if not choice.select or choice.limit is None:
        return CHUNK
    where, more = _matched(choice.selector)
    counted = run(
        snapshot.connection,
        "SELECT count(*) AS population,"
        " coalesce(sum(CASE WHEN d.template_version = :template THEN 1 ELSE 0 END), 0) AS reached"
        f" FROM device d WHERE {OURS}{where}",
        dict(parameters) | more,
    ).one()
    chosen = run(
        snapshot.connection,
        f"SELECT count(*) AS n FROM device d WHERE {OURS} AND d.rollout = :rollout"
        " AND d.rollout_batch = :batch",
        parameters,
    ).scalar_one()
    room = rollout_plan.may_choose(
        choice.limit, population=counted.population, reached=counted.reached, chosen=chosen
    )
    return CHUNK if room is None else room


def _chosen(choice: Choice) -> tuple[str, dict[str, Any]]:
    """SQL that narrows `d` to what a batch takes."""
    if not choice.select:
        return f" AND {_MEMBER} AND d.rollout_batch <= :batch", {}
    if choice.is_last:
        return "", {}
    where, parameters = _matched(choice.selector)
    return f" AND d.connected = 1 AND NOT {_MEMBER}{where}", parameters


def _matched(selector: LabelSelector) -> tuple[str, dict[str, Any]]:
    """SQL that narrows `d` to what has the labels, with its parameters."""
    clauses: list[str] = []
    parameters: dict[str, Any] = {}
    for number, requirement in enumerate(selector.requirements):
        assert isinstance(requirement, Requirement), "a batch selector has plain requirements"
        key = f"key_{number}"
        parameters[key] = requirement.key
        values = []
        for position, value in enumerate(requirement.values):
            parameters[f"value_{number}_{position}"] = value
            values.append(f":value_{number}_{position}")
        among = f" AND l.value IN ({', '.join(values)})" if values else ""
        has = f"EXISTS (SELECT 1 FROM device_label l WHERE l.uid = d.uid AND l.key = :{key}{among})"
        negative = requirement.operator in ("!", "!=", "notin")
        clauses.append(f" AND {'NOT ' if negative else ''}{has}")
    return "".join(clauses), parameters


def names_of(attempt: Attempt) -> dict[str, Any]:
    return {
        "namespace": attempt.namespace,
        "fleet": attempt.fleet,
        "template": attempt.template_version,
        "rollout": attempt.rollout,
        "retry": attempt.retry,
    }


def _parameters(snapshot: Snapshot, target: Target) -> dict[str, Any]:
    return names_of(target) | {
        "spec": target.spec_digest,
        "rendered": target.rendered_digest,
        "os_image": target.os_image,
        "out_of_date": OUT_OF_DATE,
        "up_to_date": UP_TO_DATE,
    }


@dataclass(frozen=True, slots=True)
class _Columns:
    """What becomes of the columns of `d`, as SQL. With `gives` its agent gets what is new."""

    dialect: Dialect
    rerender: str
    retry: str
    gives: bool

    @property
    def version(self) -> str:
        if not self.gives:
            return "d.rendered_version"
        following = self.dialect.greatest("d.rendered_version", "d.reported_version") + " + 1"
        return f"CASE WHEN {self.rerender} THEN {following} ELSE d.rendered_version END"

    @property
    def render_needed(self) -> str:
        return "0" if self.gives else f"CASE WHEN {self.rerender} THEN 1 ELSE 0 END"

    @property
    def rerendered(self) -> str:
        return f"CASE WHEN {self.rerender} THEN 1 ELSE 0 END" if self.gives else "0"

    @property
    def retried(self) -> str:
        return f"CASE WHEN {self.retry} THEN 1 ELSE 0 END" if self.gives else "0"

    @property
    def updated(self) -> str:
        return (
            "CASE WHEN d.updated_status IN ('Updating') THEN d.updated_status"
            " WHEN d.connected = 0 AND d.seen = 1 THEN 'Unknown'"
            f" WHEN {self.rerender} OR d.reported_version <> d.rendered_version THEN 'OutOfDate'"
            " ELSE 'UpToDate' END"
        )


def _take(
    tx: Transaction,
    new: _Columns,
    source: str,
    parameters: Mapping[str, Any],
    limit: int,
    to: _To,
) -> int:
    """Fill the scratch table from `source`, whose `d` is the device; how many rows there are."""
    respecified = tx.dialect.distinct_from("d.spec_digest", to.spec)
    return scratch.fill(
        tx,
        source,
        dict(parameters) | {"limit": limit},
        updated_status=new.updated,
        render_needed=new.render_needed,
        rendered_version=new.version,
        rerendered=new.rerendered,
        retried=new.retried,
        respecified=f"CASE WHEN {respecified} THEN 1 ELSE 0 END",
    )


def _move(
    tx: Transaction,
    target: Target,
    new: _Columns,
    columns: list[str],
    parameters: Mapping[str, Any],
    taken: int,
) -> Bound:
    """Log the rows of the scratch table, and update the devices from it."""
    to = _EACH if target.is_given else _ONE
    first = tx.next_version(taken)
    scratch.log(tx, first)
    counted = scratch.count(tx)
    template = ":template"
    if new.gives:
        columns.append(
            f"rendered_digest = {to.rendered}, render_error = NULL, inputs_digest = NULL"
        )
        columns.append("spec_valid = 'True'")
    else:
        # Where nothing new comes of it, nobody has to be given anything.
        was = "device.rendered_template_version"
        template = f"CASE b.render_needed WHEN 1 THEN {was} ELSE :template END"
    columns.append(f"rendered_template_version = {template}, waits_for = NULL")
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1,"
        f" generation = device.generation + b.respecified, bound_at = :now, {', '.join(columns)},"
        " behind = 0,"
        f" os_image = {to.os_image}, rendered_version = b.rendered_version,"
        " retry_generation = device.retry_generation + b.retried,"
        " render_needed = b.render_needed, updated_status = b.updated_status,"
        " updated_info = CASE b.updated_status WHEN 'OutOfDate' THEN :out_of_date"
        " WHEN 'UpToDate' THEN :up_to_date ELSE device.updated_info END"
        f" FROM bound b{to.b} WHERE device.uid = b.uid AND {scratch.holds(tx.dialect)}",
        dict(parameters) | {"first": first, "now": tx.now.timestamp()},
    )
    if counted.rendered:
        _history(tx, target, to)
    if counted.waited or counted.waits:
        tx.backlog_moved(target.namespace)
    return Bound(taken, counted.rendered, counted.last, counted.wishing)


def _history(tx: Transaction, target: Target, to: _To) -> None:
    # A version ends when the next one of the device begins; so ends are not written.
    run(
        tx.connection,
        "INSERT INTO device_history (uid, rendered_version, spec_digest, rendered_digest,"
        f" template_version, from_at) SELECT b.uid, b.rendered_version, {to.spec}, {to.rendered},"
        f" :template, :now FROM bound b{to.b} WHERE b.rerendered = 1",
        {
            "spec": target.spec_digest,
            "rendered": target.rendered_digest,
            "template": target.template_version,
            "now": tx.now_s,
        },
    )
