"""The laws of server-side apply, for any documents and any appliers."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.wire import fieldset, managed, ownership, structure
from apiserver.wire.ownership import Conflicts, Writer
from resources.kind import Json

# Enough to find what the rules of Kubernetes make easy to get wrong; a soak looks further.
LAW = settings(max_examples=3000 if os.environ.get("HOMEPORT_SOAK") else 60)
V = "acme.io/v1"
TEXT: Json = {"type": "string"}
# One of everything that ownership tells apart.
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "metadata": {
            "type": "object",
            "properties": {
                "name": TEXT,
                "labels": {"type": "object", "additionalProperties": TEXT},
            },
        },
        "spec": {
            "type": "object",
            "properties": {
                "image": TEXT,
                "deep": {"type": "object", "properties": {"x": TEXT, "y": TEXT}},
                "command": {"type": "array", "items": TEXT},
                "tags": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
                "apps": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "properties": {"name": TEXT, "image": TEXT, "port": {"type": "integer"}},
                    },
                },
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "limits": {"type": "object", "x-kubernetes-map-type": "atomic"},
            },
        },
        "status": {"type": "object", "properties": {"phase": TEXT}},
    },
}

values = st.sampled_from(["1", "2"])
keys = st.sampled_from(["a", "b", "c"])
few = st.dictionaries(keys, values, min_size=1, max_size=2)
app = st.fixed_dictionaries({"name": keys}, optional={"image": values, "port": st.integers(1, 2)})
spec = st.fixed_dictionaries(
    {},
    optional={
        "image": values,
        "deep": st.fixed_dictionaries({"x": values}, optional={"y": values}),
        "command": st.lists(values, min_size=1, max_size=2),
        "tags": st.lists(values, min_size=1, max_size=2, unique=True),
        "apps": st.lists(app, min_size=1, max_size=3, unique_by=lambda a: str(a["name"])),
        "open": st.dictionaries(keys, few | values, min_size=1, max_size=2),
        "limits": few,
    },
).filter(bool)
configs = st.builds(
    lambda labels, spec: {"metadata": {"name": "web", "labels": labels}, "spec": spec}, few, spec
)


def writer(name: str, operation: str = managed.APPLY, time: str = "2026-01-01T00:00:00Z") -> Writer:
    return Writer(SCHEMA, managed.owner(name, operation, V), V, time)


def apply(
    name: str, live: Json, config: Json, owners: Any, *, force: bool = False
) -> tuple[Json, dict[managed.Owner, managed.Owned]]:
    return ownership.applied(writer(name), live, config, owners, force=force)


def canonical(document: Json) -> str:
    """Lists with keys and sets in order: who applied first decides how they stand, nothing else."""
    spec = document.get("spec") or {}
    ordered = {
        key: sorted(value, key=fieldset.canonical) if key in ("apps", "tags") else value
        for key, value in spec.items()
    }
    return fieldset.canonical(document | {"spec": ordered})


@LAW
@given(configs, configs)
def test_applying_the_same_again_changes_nothing(first: Json, second: Json) -> None:
    live, owners = apply("one", {}, first, {})
    live, owners = apply("two", live, second, owners, force=True)
    again, same = apply("two", live, second, owners)
    assert again == live
    assert same == owners


@LAW
@given(configs, configs)
def test_appliers_of_different_fields_commute(first: Json, second: Json) -> None:
    second = structure.without(SCHEMA, second, structure.fields_of(SCHEMA, first))
    results = []
    for order in (("one", first, "two", second), ("two", second, "one", first)):
        live, owners = apply(order[0], {}, order[1], {})
        live, owners = apply(order[2], live, order[3], owners)
        results.append((canonical(live), owners))
    assert results[0] == results[1]


def agreeing(live: Json, config: Json) -> Json:
    """The configuration without what would conflict."""
    new = structure.merged(SCHEMA, live, config)
    return structure.without(SCHEMA, config, structure.compared(SCHEMA, live, new).modified)


@LAW
@given(configs, configs, configs)
def test_what_is_no_longer_applied_goes_and_nothing_else(
    other: Json, before: Json, after: Json
) -> None:
    """One applied `before` and then `after` beside another: as if it had applied `after` alone."""
    base, owners = apply("other", {}, other, {})
    live, left = apply("one", base, agreeing(base, before), owners)
    live, left = apply("one", live, agreeing(base, after), left)
    straight, straight_owners = apply("one", base, agreeing(base, after), owners)
    assert canonical(live) == canonical(straight)
    assert left == straight_owners


@LAW
@given(configs, configs)
def test_a_conflict_names_every_field_whose_value_would_change_under_its_owner(
    first: Json, second: Json
) -> None:
    live, owners = apply("one", {}, first, {})
    merged = structure.merged(SCHEMA, live, second)
    clash = structure.compared(SCHEMA, live, merged).modified & structure.fields_of(SCHEMA, first)
    if not clash:
        apply("two", live, second, owners)
        return
    with pytest.raises(Conflicts) as problem:
        apply("two", live, second, owners)
    assert problem.value.found == {managed.owner("one", managed.APPLY, V): clash}


@LAW
@given(configs, configs)
def test_force_takes_what_conflicts_and_leaves_the_rest_to_its_owner(
    first: Json, second: Json
) -> None:
    live, owners = apply("one", {}, first, {})
    new, after = apply("two", live, second, owners, force=True)
    mine = after[managed.owner("two", managed.APPLY, V)].fields
    assert mine == structure.fields_of(SCHEMA, second) - {("f:metadata", "f:name")}
    left = after.get(managed.owner("one", managed.APPLY, V))
    changed = structure.compared(SCHEMA, live, new).changed
    if left is not None:
        assert not left.fields & changed


@LAW
@given(configs, configs)
def test_an_update_owns_exactly_what_it_changed(first: Json, second: Json) -> None:
    live, owners = apply("one", {}, first, {})
    found = structure.compared(SCHEMA, live, second)
    after = ownership.updated(writer("ed", managed.UPDATE), live, second, owners)
    edited = after.get(managed.owner("ed", managed.UPDATE, V))
    expected = found.changed - {("f:metadata",)}
    assert (edited.fields if edited else fieldset.NOTHING) == expected
    for owner, owned in after.items():
        if owner.manager != "ed":
            assert not owned.fields & (found.changed | found.removed)


@LAW
@given(configs, configs)
def test_a_comparison_is_what_it_says(old: Json, new: Json) -> None:
    found = structure.compared(SCHEMA, old, new)
    assert not found.added & found.modified
    assert not found.added & found.removed
    assert (not found.changed and not found.removed) == (canonical(old) == canonical(new))
    back = structure.compared(SCHEMA, new, old)
    assert (back.added, back.modified, back.removed) == (
        found.removed, found.modified, found.added,
    )  # fmt: skip


@LAW
@given(configs)
def test_fields_v1_is_read_as_it_was_written(document: Json) -> None:
    fields = structure.fields_of(SCHEMA, document)
    assert fieldset.from_fields_v1(fieldset.to_fields_v1(fields)) == fields
    owners = {managed.owner("one", managed.APPLY, V): managed.Owned(fields, V)}
    assert managed.decode(managed.encode(owners)) == owners


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
odd = st.dictionaries(
    st.sampled_from(["metadata", "spec", "status"]),
    st.dictionaries(
        st.sampled_from(["labels", "image", "deep", "tags", "apps", "open", "limits"]), json_values
    )
    | json_values,
)


@LAW
@given(odd, odd)
def test_no_document_of_any_shape_makes_it_fail(live: Json, config: Json) -> None:
    try:
        new, owners = apply("one", live, config, {}, force=True)
    except structure.Duplicated:
        return
    ownership.updated(writer("ed", managed.UPDATE), new, live, owners)


def test_a_new_item_stands_where_its_applier_has_it() -> None:
    def apps(*names: str) -> Json:
        return {"spec": {"apps": [{"name": name} for name in names]}}

    def order(live: Json, config: Json) -> list[str]:
        return [a["name"] for a in structure.merged(SCHEMA, live, config)["spec"]["apps"]]

    assert order(apps("a", "c"), apps("a", "b", "c")) == ["a", "b", "c"]
    assert order(apps("a", "b"), apps("b", "a")) == ["b", "a"]
    assert order(apps("x", "a", "y", "b"), apps("b", "a")) == ["x", "y", "b", "a"]
    assert order(apps("a"), apps("b")) == ["a", "b"]
    # A live list that has one twice gives way to what is applied.
    assert order(apps("a", "a", "x"), apps("a")) == ["a", "x"]


def test_what_nobody_applied_stays_unless_its_container_goes() -> None:
    """The service wrote beside an applier, and owns nothing. So it is in Kubernetes too."""
    live, owners = apply("one", {}, {"spec": {"image": "1", "deep": {"x": "1"}}}, {})
    live["spec"] |= {"command": ["2"], "deep": {"x": "1", "y": "2"}}
    left, _ = apply("one", live, {"spec": {"image": "1"}}, owners)
    assert left == {"spec": {"image": "1", "command": ["2"]}}


def test_two_items_of_one_key_are_refused_in_what_is_applied() -> None:
    config = {"spec": {"apps": [{"name": "a"}, {"name": "a"}]}}
    with pytest.raises(structure.Duplicated, match=r'name="a"'):
        apply("one", {}, config, {})


def test_what_was_there_before_anybody_applied_is_owned_by_that_name() -> None:
    live = {"spec": {"image": "1", "command": ["1"]}}
    with pytest.raises(Conflicts) as problem:
        apply("one", live, {"spec": {"image": "2"}}, {})
    assert [owner.manager for owner in problem.value.found] == [ownership.BEFORE]
    new, owners = apply("one", live, {"spec": {"image": "1"}}, {})
    assert new == live
    assert {owner.manager for owner in owners} == {"one", ownership.BEFORE}


def test_no_more_than_ten_updaters_are_kept_apart() -> None:
    live: Json = {"spec": {}}
    owners: dict[managed.Owner, managed.Owned] = {}
    for n in range(14):
        new = {"spec": {"open": {**live["spec"].get("open", {}), f"k{n}": "1"}}}
        by = writer(f"m{n}", managed.UPDATE, f"2026-01-01T00:00:{n:02}Z")
        owners = ownership.updated(by, live, new, owners)
        live = new
    assert len(owners) == managed.UPDATERS_MAX
    ancient = owners[managed.owner(managed.ANCIENT, managed.UPDATE, V)]
    assert ("f:spec", "f:open", "f:k0") in ancient.fields
    assert ("f:spec", "f:open", "f:k4") in ancient.fields
    assert managed.owner("m5", managed.UPDATE, V) in owners


def test_what_an_endpoint_can_not_change_is_not_owned_through_it() -> None:
    status = replace(writer("one"), ignored=(("f:spec",),))
    config = {"spec": {"image": "1"}, "status": {"phase": "x"}}
    _, owners = ownership.applied(status, {}, config, {}, force=False)
    (owned,) = owners.values()
    assert owned.fields == {("f:status", "f:phase")}


@pytest.mark.parametrize(
    "entries",
    [
        "text",
        [{"operation": "Take"}],
        [{"operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV2"}],
        [{"operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV1", "fieldsV1": {"x": 1}}],
        [{"operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV1", "manager": 1}],
        [{"operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV1", "time": "now"}],
        [{"operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV1",
          "fieldsV1": {"k:[]": {}}}],
    ],
)  # fmt: skip
def test_owners_that_make_no_sense_count_as_none_sent(entries: Any) -> None:
    live = [
        {"manager": "a", "operation": "Apply", "apiVersion": V, "fieldsType": "FieldsV1",
         "fieldsV1": {"f:spec": {}}}
    ]  # fmt: skip
    kept = managed.live_or_sent(live, entries, subresource="")
    assert [owner.manager for owner in kept] == ["a"]
    assert managed.live_or_sent(live, [{}], subresource="") == {}
    assert managed.live_or_sent(live, [], subresource="status") == kept
