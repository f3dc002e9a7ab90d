"""A rollout's bindings: which devices a call takes, what they are given, and how far they are.

A thousand devices a transaction. Rendering happens on a snapshot, outside the store lock: what
comes out is under its digest, so a repeated call stores nothing twice. Both gates, batch and
budget, are judged in `store.rolling`, and whether the rollout may still bind is read under the
lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from apiserver import errors, fetching, inputs
from apiserver.resolving import Chunk, Resolver, drafted
from apiserver.store import (
    Snapshot,
    Store,
    Transaction,
    givens,
    outdating,
    overriding,
    rolling,
    sets,
)
from apiserver.store import progress as progress_of
from resources import (
    attempts,
    overrides,
    parameters,
    references,
    registry,
    render,
    rollout_plan,
    selectors,
)
from resources import causes as causing
from resources.errors import Invalid
from resources.kind import Json

MAX_LIMIT = 100_000
CAUSES = 10


async def bind(store: Store, namespace: str, fleet: str, request: Json) -> Json:
    """Bind devices of a fleet to a template version, up to `limit`, a thousand a transaction.

    `request` has templateVersion and rollout, and may have batch (the last one), select (true) and
    limit (MAX_LIMIT), as `rollout_plan.Bind` explains them. Which devices a batch takes, and what
    the disruption budget allows of it, the policy of the Rollout says. With `mark` nothing is
    bound: devices that do not have the rollout's version, for their turn has not come, say that
    they are out of date.

    Answers {bound, rendered, remaining, failed}; for the failed the template could not be rendered,
    and they say why. Where parameters decide what is fetched from outside, `waiting` says how many
    devices were left until that is there. Repeating it is harmless: what is bound is not taken
    again. 409 when the Rollout is paused, aborted or another one's, 422 when the template version
    cannot be rendered.
    """
    limit = request.get("limit", MAX_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise errors.BadRequest("limit must be a positive integer")
    if request.get("mark"):
        return await _mark(store, namespace, fleet, str(request.get("rollout") or ""))
    work = await store.read(lambda s: _work(s, namespace, fleet, request))
    with store.hub.bulks.under_way():
        if work.resolver is not None:
            return await _bind_each(store, work, work.resolver, limit)
        return await _bind_alike(store, work, limit)


async def _bind_alike(store: Store, work: _Work, limit: int) -> Json:
    """`bind`, where all devices are given the same."""
    bound = rendered = remaining = 0
    after = ""
    while bound < limit:
        size = min(limit - bound, sets.CHUNK)
        how: Json = {"limit": size, "after": after, "is_last": bound + size == limit}
        taken, remaining = await store.write(partial(_bind_some, work=work, **how), is_urgent=True)
        # Stored once is enough: no sweep takes what was touched within the hour.
        work = replace(work, blobs={})
        bound, rendered = bound + taken.rows, rendered + taken.rendered
        if taken.rows == size:
            after = taken.last
        elif after:
            # The end of the names. What came or changed before it meanwhile is still to be done.
            after = ""
        else:
            break
    given = 0 if work.is_held else limit
    while given < limit:
        size = min(limit - given, sets.CHUNK)
        taken = await store.write(partial(_give_some, work=work, limit=size), is_urgent=True)
        given, rendered = given + taken.rows, rendered + taken.rendered
        if taken.rows < size:
            break
    return {"bound": bound, "rendered": rendered, "remaining": remaining, "failed": 0}


async def _mark(store: Store, namespace: str, fleet: str, name: str) -> Json:
    after = ""

    def step(tx: Transaction) -> outdating.Marked:
        rollout = _rollout(tx, namespace, fleet, name)
        _check_last(tx, namespace, name)
        return outdating.mark(tx, _attempt(rollout), after)

    while (marked := await store.write(step)).is_more:
        after = marked.last
    return {"bound": 0, "rendered": 0, "remaining": 0, "failed": 0}


async def _bind_each(store: Store, work: _Work, resolver: Resolver, limit: int) -> Json:
    """`bind`, where the template has parameters: each device has its own, or a reason why not. What
    that is, is made on a snapshot, and taken if the device's inputs are the same still."""
    bound = rendered = failed = waiting = 0
    after = ""
    while bound < limit:
        size = min(limit - bound, sets.CHUNK)
        how: Json = {"limit": size, "after": after, "held": work.is_held}
        find = partial(rolling.to_bind, target=work.target, choice=work.choice, **how)
        chunk = await store.read(partial(resolver.resolve, find=find))
        if chunk.devices:
            taken, left = await store.write(
                partial(_bind_chunk, work=work, chunk=chunk), is_urgent=True
            )
            bound, rendered = bound + taken.rows, rendered + taken.rendered
            failed, waiting = failed + left.refused, waiting + left.waiting
        if chunk.asked == size or len(chunk.devices) < chunk.asked:
            after = chunk.last
        elif after:
            after = ""
        else:
            break
    given = 0 if work.is_held else limit
    while given < limit:
        how = {"budget": work.budget_at(store.now()), "limit": min(limit - given, sets.CHUNK)}
        find = partial(rolling.to_give, target=work.target, **how)
        chunk = await store.read(partial(resolver.resolve, find=find))
        if not chunk.devices:
            break
        taken, left = await store.write(
            partial(_give_chunk, work=work, chunk=chunk), is_urgent=True
        )
        given, rendered = given + len(chunk.devices), rendered + taken.rendered
        failed, waiting = failed + left.refused, waiting + left.waiting
    remaining = await store.read(lambda s: _remaining(s, work, store.now()))
    answer = {"bound": bound, "rendered": rendered, "remaining": remaining, "failed": failed}
    return answer | ({"waiting": waiting} if resolver.is_open else {})


def _bind_chunk(tx: Transaction, *, work: _Work, chunk: Chunk) -> tuple[rolling.Bound, givens.Left]:
    _put_chunk(tx, work, chunk)
    held, number = work.is_held, len(chunk.devices)
    taken = rolling.bind(tx, work.target, work.choice, number, held=held)
    if taken.wishing:
        overriding.prune_bound(tx, work.applications)
    return taken, givens.leave(tx, work.target, work.choice.batch)


def _give_chunk(tx: Transaction, *, work: _Work, chunk: Chunk) -> tuple[rolling.Bound, givens.Left]:
    _put_chunk(tx, work, chunk)
    taken = rolling.give(tx, work.target, work.budget_at(tx.now), len(chunk.devices))
    return taken, givens.leave(tx, work.target, work.choice.batch)


def _put_chunk(tx: Transaction, work: _Work, chunk: Chunk) -> None:
    _check_live(tx, work.target)
    if chunk.blobs:
        tx.put_contents(chunk.blobs)
    if chunk.wanted:
        fetching.want(tx, work.target, chunk.wanted.values())
    givens.put(tx, chunk.devices)


def _remaining(snapshot: Snapshot, work: _Work, now: datetime) -> int:
    found = _progress(snapshot, work.target, work.policy, now)
    return int(_counted(found.all, is_held=work.is_held)["unbound"])


@dataclass(frozen=True, slots=True)
class _Work:
    """What a call binds, with the documents that it takes for that."""

    target: rolling.Target
    choice: rolling.Choice
    policy: Json
    blobs: Mapping[str, bytes]
    resolver: Resolver | None = None
    applications: frozenset[str] = frozenset()

    @property
    def is_held(self) -> bool:
        """Whether what is bound is given later, as a budget or the minute allows."""
        return rollout_plan.holds(self.policy)

    def budget_at(self, now: datetime) -> rolling.Budget:
        at = now.timestamp()
        return rolling.Budget(
            policy=self.policy.get("disruptionBudget"),
            per_minute=self.policy.get("maxDevicesPerMinute"),
            now=at,
            cutoff=at - rollout_plan.timeout_s(self.policy),
        )


def _bind_some(
    tx: Transaction, *, work: _Work, limit: int, after: str, is_last: bool
) -> tuple[rolling.Bound, int]:
    """What was bound, and how many are left after the last call."""
    _check_live(tx, work.target)
    if work.blobs:
        tx.put_contents(work.blobs)
    held = work.is_held
    taken = rolling.bind(tx, work.target, work.choice, limit, after, held=held)
    if taken.wishing:
        overriding.prune_bound(tx, work.applications)
    if not is_last or taken.rows < limit:
        return taken, 0
    return taken, _remaining(tx, work, tx.now)


def _give_some(tx: Transaction, *, work: _Work, limit: int) -> rolling.Bound:
    _check_live(tx, work.target)
    return rolling.give(tx, work.target, work.budget_at(tx.now), limit)


def _work(snapshot: Snapshot, namespace: str, fleet: str, request: Json) -> _Work:
    name = str(request.get("templateVersion") or "")
    rollout = _rollout(snapshot, namespace, fleet, str(request.get("rollout") or ""))
    policy = rollout["spec"]["target"].get("policy") or {}
    kind = registry.by_kind("TemplateVersion")
    version = snapshot.get(kind, namespace, name)
    if version is None or version["spec"]["fleet"] != fleet:
        raise errors.not_found(kind, name)
    try:
        choice = _choice(policy, request)
        frozen = inputs.load(snapshot, version["status"].get("inputs") or ())
        template = version["status"]
        render.check(template, frozen=frozen.files)
        retry = attempts.retry_in_force(rollout)
        target = rolling.Target(namespace, fleet, name, rollout["metadata"]["name"], retry)
        blobs: Mapping[str, bytes] = {}
        resolver = None
        if parameters.uses(template) or references.are_open(template):
            target = replace(target, is_given=True)
            resolver = Resolver(version["metadata"]["uid"], template, frozen)
        else:
            # One render serves every device.
            rendered = render.evaluate(template, name="", labels={}, frozen=frozen)
            draft, blobs = drafted(snapshot, rendered, frozen)
            target = replace(
                target,
                spec_digest=draft.spec_digest,
                rendered_digest=draft.rendered_digest,
                os_image=draft.os_image,
            )
    except Invalid as problem:
        raise errors.unprocessable(kind, name, problem) from problem
    return _Work(
        target,
        choice,
        policy=policy,
        blobs=blobs,
        resolver=resolver,
        applications=overrides.names_of(template),
    )


def _choice(policy: Json, request: Json) -> rolling.Choice:
    batches = rollout_plan.batches_of(policy)
    number = request.get("batch", len(batches) - 1)
    select = request.get("select", True)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(batches):
        raise errors.BadRequest(f"batch must be a number from 0 to {len(batches) - 1}")
    if not isinstance(select, bool):
        raise errors.BadRequest("select must be true or false")
    batch = batches[number]
    selector = batch.get("selector")
    return rolling.Choice(
        batch=number,
        is_last=number == len(batches) - 1,
        select=select,
        selector=selectors.from_match(selector) if selector else selectors.EVERYTHING,
        limit=batch.get("limit"),
    )


def _rollout(snapshot: Snapshot, namespace: str, fleet: str, name: str) -> Json:
    kind = registry.by_kind("Rollout")
    rollout = snapshot.get(kind, namespace, name)
    if rollout is None:
        raise errors.not_found(kind, name)
    if rollout["spec"]["target"]["fleet"] != fleet:
        raise errors.conflict(kind, name, f"it is not a rollout of fleet {fleet}")
    return rollout


def _check_live(tx: Transaction, attempt: rolling.Attempt) -> None:
    """Read under the lock: a pause that was committed holds from then on."""
    namespace, name = attempt.namespace, attempt.rollout
    rollout, kind = _rollout(tx, namespace, attempt.fleet, name), registry.by_kind("Rollout")
    control = rollout["spec"].get("control") or {}
    for key, state in (("paused", "paused"), ("aborted", "aborted"), ("revert", "taken back")):
        if control.get(key):
            raise errors.conflict(kind, name, f"the rollout is {state}")
    _check_last(tx, namespace, name)
    if (rollout.get("status") or {}).get("phase") == "Aborted":
        raise errors.conflict(kind, name, "the rollout has been aborted or superseded")


def _check_last(tx: Transaction, namespace: str, name: str) -> None:
    kind = registry.by_kind("Rollout")
    version, _, number = name.rpartition("-")
    later = f"{version}-{int(number) + 1}" if number.isdigit() else ""
    if later and tx.get(kind, namespace, later) is not None:
        raise errors.conflict(kind, name, f"{later} has taken its place")


async def progress(store: Store, namespace: str, fleet: str, rollout: str) -> Json:
    """How far the devices of a fleet are with a rollout, counted by the database."""

    def count(snapshot: Snapshot) -> Json:
        kind = registry.by_kind("Rollout")
        found = snapshot.get(kind, namespace, rollout)
        if found is None or found["spec"]["target"]["fleet"] != fleet:
            raise errors.not_found(kind, rollout)
        policy = found["spec"]["target"].get("policy") or {}
        attempt, is_held, now = _attempt(found), rollout_plan.holds(policy), store.now()
        counted = _progress(snapshot, attempt, policy, now)
        answer = _counted(counted.all, is_held=is_held)
        answer["batches"] = [
            {"number": number} | _counted(counts, is_held=is_held)
            for number, counts in counted.batches.items()
        ]
        answer |= _timers(counted, policy, now.timestamp())
        # Those that an attempt before this one has brought there were not selected again.
        answer["selected"] = max(answer["bound"], sum(b["total"] for b in answer["batches"]))
        causes = progress_of.failures(snapshot, attempt)
        if counted.all["refused"]:
            causes += givens.refusals(snapshot, attempt)
        answer["failures"] = causing.grouped(causes, CAUSES)
        return answer

    return await store.read(count)


def _attempt(rollout: Json) -> rolling.Attempt:
    metadata, target = rollout["metadata"], rollout["spec"]["target"]
    return rolling.Attempt(
        metadata["namespace"],
        target["fleet"],
        target["templateVersion"],
        metadata["name"],
        attempts.retry_in_force(rollout),
    )


def _progress(
    snapshot: Snapshot, attempt: rolling.Attempt, policy: Json, now: datetime
) -> progress_of.Progress:
    return progress_of.counted(
        snapshot,
        attempt,
        now=now.timestamp(),
        timeout_s=rollout_plan.timeout_s(policy),
        is_paced=bool(policy.get("maxDevicesPerMinute")),
        has_budget=bool(policy.get("disruptionBudget")),
    )


def _timers(counted: progress_of.Progress, policy: Json, now: float) -> Json:
    """In how many seconds the next device is late, and a place in the minute may be free."""
    found = {}
    if counted.first_open_at is not None:
        found["lateInS"] = max(0.0, counted.first_open_at + rollout_plan.timeout_s(policy) - now)
    if policy.get("maxDevicesPerMinute") and counted.first_given_at is not None:
        found["placeInS"] = max(0.0, counted.first_given_at + rolling.MINUTE_S - now)
    return found


def _counted(counts: Mapping[str, int], *, is_held: bool) -> Json:
    """The counts of a batch, or of all, with what is still to be done. Under a disruption budget a
    device is bound first, and held until it may have it."""
    reached = counts["bound"] if is_held else counts["rendered"]
    return dict(counts) | {
        "selected": counts["total"],
        "unbound": max(0, counts["total"] - counts["blocked"] - reached - counts["refused"]),
        "held": counts["bound"] - counts["rendered"] if is_held else 0,
    }
