"""Changes of many devices at once: a few statements for each thousand, whatever they are.

The shape is always the same: a scratch table of the affected rows with old values, new values and
row numbers; INSERT…SELECT into the change log; UPDATE from it; counter deltas grouped by old and
new. Python never loops over devices here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apiserver.store import newsworthy, scratch
from apiserver.store.statements import run
from apiserver.store.stirring import Stir
from resources import ownernews, summary

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

CHUNK = 1_000


OUT_OF_DATE = summary.NOT_APPLIED
UP_TO_DATE = summary.APPLIED


def reown(tx: Transaction, namespace: str, uids_of: str, parameters: Mapping[str, Any]) -> int:
    """Decide again who owns the devices whose uid is as the SQL `uids_of` says; one match owns,
    several own nothing new and are listed, none leaves the device without owner (contract 7.4).
    They are of this namespace, which is no condition: it would make its indexes look useful."""
    differs = tx.dialect.distinct_from
    concat = "group_concat(m.fleet, ',')" if tx.dialect.is_sqlite else "string_agg(m.fleet, ',')"
    matches = (
        "SELECT l.uid, s.fleet FROM device_label l JOIN fleet_selector s"
        " ON s.namespace = l.namespace AND s.key = l.key AND s.value = l.value"
        f" WHERE l.uid {uids_of}"
        " GROUP BY l.uid, s.fleet, s.total HAVING count(*) = s.total"
    )
    decided = (
        f"SELECT m.uid, count(*) AS n, min(m.fleet) AS fleet, {concat} AS all_fleets"
        f" FROM ({matches} ORDER BY l.uid, s.fleet) m GROUP BY m.uid"
    )
    fleet = "CASE WHEN x.n > 1 THEN d.fleet ELSE coalesce(x.fleet, '') END"
    several = "CASE WHEN x.n > 1 THEN x.all_fleets END"
    moved = f"({differs('d.fleet', fleet)} OR {differs('d.candidates', several)})"
    needs = f"CASE WHEN ({fleet}) <> '' AND ({fleet}) <> d.fleet THEN 1 ELSE d.render_needed END"
    # A new fleet has something else in mind for the device, whatever that will be.
    updated = (
        f"CASE WHEN d.updated_status = 'UpToDate' AND ({needs}) = 1 THEN 'OutOfDate'"
        # Of no fleet any more, it waits for no turn.
        f" WHEN ({fleet}) = '' AND d.behind = 1 AND d.updated_status = 'OutOfDate'"
        " AND d.render_needed = 0 AND d.reported_version = d.rendered_version"
        " AND d.render_error IS NULL THEN 'UpToDate' ELSE d.updated_status END"
    )
    owner = "CASE WHEN x.n > 1 THEN d.owner WHEN x.n = 1 THEN 'Fleet/' || x.fleet END"
    taken = scratch.fill(
        tx,
        f"device d LEFT JOIN ({decided}) x ON x.uid = d.uid"
        f" WHERE d.uid {uids_of} AND d.decommissioning = 0"
        f" AND (d.owner IS NULL OR d.fleet <> '') AND {moved}",
        dict(parameters) | {"namespace": namespace},
        owner=owner,
        fleet=fleet,
        candidates=several,
        old_candidates="d.candidates",
        updated_status=updated,
        render_needed=needs,
    )
    if not taken:
        return 0
    # What its fleet asks of its applications. Who has no fleet any more stays as it is, and who is
    # left alone is given it when that ends.
    wishes = (
        "CASE WHEN device.pause <> 0 OR b.fleet IN ('', device.fleet)"
        " THEN device.fleet_overrides ELSE"
        " (SELECT o.overrides FROM fleet_override o"
        " WHERE o.namespace = b.namespace AND o.fleet = b.fleet) END"
    )
    following = tx.dialect.greatest("device.rendered_version", "device.reported_version") + " + 1"
    version = (
        "CASE WHEN device.rendered_digest IS NOT NULL"
        f" AND {differs('device.fleet_overrides', f'({wishes})')}"
        f" THEN {following} ELSE device.rendered_version END"
    )
    first = tx.next_version(taken)
    scratch.log(tx, first)
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, owner = b.owner,"
        " fleet = b.fleet, candidates = b.candidates, several_at = CASE"
        " WHEN b.candidates IS NULL AND b.old_candidates IS NOT NULL"
        " OR b.candidates IS NOT NULL AND b.old_candidates IS NULL"
        " THEN :now ELSE device.several_at END, render_needed = b.render_needed,"
        " updated_status = b.updated_status, updated_info = CASE WHEN"
        " b.updated_status <> device.updated_status THEN CASE b.updated_status"
        " WHEN 'UpToDate' THEN :up_to_date ELSE :info END ELSE device.updated_info END,"
        " behind = CASE WHEN b.fleet <> b.old_fleet THEN 0 ELSE device.behind END,"
        f" fleet_overrides = {wishes}, rendered_version = {version},"
        " inputs_version = device.inputs_version + 1"
        f" FROM bound b WHERE device.uid = b.uid AND {scratch.holds(tx.dialect)}",
        {"first": first, "now": tx.now_s, "info": OUT_OF_DATE, "up_to_date": UP_TO_DATE},
    )
    scratch.count(tx)
    tx.backlog_moved(namespace)
    if taken <= newsworthy.TOLD_OF_EACH_MAX:
        _tell_each(tx, first)
    _stir_those_left(tx, namespace)
    return int(taken)


def _tell_each(tx: Transaction, first: int) -> None:
    """What this means to each of the devices that are in the scratch table."""
    rows = run(
        tx.connection,
        "SELECT n, uid, namespace, name, owner, old_owner, candidates, old_candidates FROM bound"
        " ORDER BY n",
        {},
    )
    for row in rows:
        about = newsworthy.about_device(row._mapping, first + row.n - 1)
        was = newsworthy.claims(row.old_owner, row.old_candidates)
        tx.announce(about, ownernews.of(was, newsworthy.claims(row.owner, row.candidates)))


def fleets_of(snapshot: Snapshot, namespace: str, labels: str) -> list[tuple[str, str | None]]:
    """The fleets that select devices with these labels (a JSON object), in order of name, each with
    what it asks of its applications."""
    each = "json_each(:labels)"
    if not snapshot.dialect.is_sqlite:
        each = "json_each_text(CAST(:labels AS json))"
    found = run(
        snapshot.connection,
        f"SELECT x.fleet, o.overrides FROM (SELECT s.fleet FROM {each} l JOIN fleet_selector s"
        " ON s.namespace = :namespace AND s.key = l.key AND s.value = l.value"
        " GROUP BY s.fleet, s.total HAVING count(*) = s.total) x"
        " LEFT JOIN fleet_override o ON o.namespace = :namespace AND o.fleet = x.fleet"
        " ORDER BY x.fleet",
        {"namespace": namespace, "labels": labels},
    )
    return [(row.fleet, row.overrides) for row in found]


def _stir_those_left(tx: Transaction, namespace: str) -> None:
    """Rollouts that devices have left may have waited for those."""
    left = run(
        tx.connection,
        # By index, and none at all where a device is new: of a plain join PostgreSQL may read all.
        "SELECT DISTINCT b.old_fleet AS fleet, d.rollout AS rollout FROM device d"
        " JOIN bound b ON b.uid = d.uid WHERE d.rollout IS NOT NULL AND "
        + tx.dialect.among("d.uid", "SELECT uid FROM bound WHERE old_fleet <> ''"),
        {},
    )
    for row in left:
        tx.rollout_moved(namespace, row.rollout, Stir(row.fleet))


# Devices whose owner a change of one fleet can move: its own, those it may be among several for,
# and those that carry all the labels that it selects now.
UIDS_OF_FLEET = (
    "IN (SELECT uid FROM device WHERE namespace = :namespace AND (fleet = :fleet"
    " OR (candidates IS NOT NULL AND ',' || candidates || ',' LIKE '%,' || :fleet || ',%'))"
    " UNION SELECT l2.uid FROM device_label l2 JOIN fleet_selector s2"
    " ON s2.namespace = l2.namespace AND s2.key = l2.key AND s2.value = l2.value"
    " WHERE s2.namespace = :namespace AND s2.fleet = :fleet"
    " GROUP BY l2.uid, s2.total HAVING count(*) = s2.total)"
)
UID = "= :uid"


def unbound_by_fleet(snapshot: Snapshot, namespace: str) -> dict[str, int]:
    """fleet → devices that wait to be rendered; '' for those of no fleet."""
    rows = run(
        snapshot.connection,
        "SELECT fleet, count(*) AS n FROM device"
        " WHERE namespace = :namespace AND render_needed = 1 AND pause = 0 GROUP BY fleet",
        {"namespace": namespace},
    )
    return {row.fleet: row.n for row in rows}
