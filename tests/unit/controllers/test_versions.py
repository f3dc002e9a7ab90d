"""Template versions: order, names, and what counts as the same."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controllers import versions
from resources import attempts

Json = dict[str, Any]


def head(name: str, created: str = "", version: int = 0) -> Json:
    return {"name": name, "creationTimestamp": created, "resourceVersion": str(version)}


def version(name: str, uid: str, template: Json, *inputs: Json) -> Json:
    status = {**template, "inputs": list(inputs), "conditions": [], "updatedAt": "then"}
    return {"metadata": {"name": name, "uid": uid}, "status": status}


def found(manifest: str, revision: str = "r") -> Json:
    return {"name": "base", "manifest": manifest, "revision": revision}


FLEET: Json = {"metadata": {"name": "a.v2", "generation": 3}}
TEMPLATE = {"os": {"image": "x"}}


def test_the_newest_is_that_of_the_highest_generation_and_then_the_last_stored() -> None:
    heads = [
        head("web.v9", "2026-01-09", 90),
        head("web.v10", "2026-01-01", 10),
        head("web.v10-00000000", "2026-01-02", 30),
        head("web.v10-ffffffff", "2026-01-02", 20),
    ]
    assert versions.newest(heads) == "web.v10-00000000"
    assert versions.newest([]) is None


def test_a_changed_template_is_named_after_the_generation() -> None:
    assert versions.next_name(FLEET, TEMPLATE, [], None) == "a.v2.v3"
    old = version("a.v2.v2", "u", {"os": {"image": "y"}})
    assert versions.next_name(FLEET, TEMPLATE, [found("m")], old) == "a.v2.v3"


@given(st.lists(st.sampled_from("AB"), min_size=2, max_size=12))
def test_outside_content_that_goes_to_and_fro_never_meets_an_old_name(contents: list[str]) -> None:
    names: list[str] = []
    newest: Json | None = None
    for number, content in enumerate(contents):
        name = versions.next_name(FLEET, TEMPLATE, [found(content)], newest)
        again = versions.next_name(FLEET, TEMPLATE, [found(content)], newest)
        assert name == again, "two controllers make the same name"
        names.append(name)
        newest = version(name, f"uid-{number}", TEMPLATE, found(content))
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"a\.v2\.v3-[0-9a-f]{8}", name) for name in names[1:])
    assert all(attempts.version_number(name) == 3 for name in names)


def test_what_stands_beside_the_template_and_where_sources_stood_does_not_count() -> None:
    one = version("web.v1", "u", TEMPLATE, found("m", "commit 1"))
    assert versions.is_same(TEMPLATE, [found("m", "commit 2")], one)
    assert not versions.is_same(TEMPLATE, [found("n", "commit 1")], one)
    assert not versions.is_same(TEMPLATE, [], one)
    assert not versions.is_same({}, [found("m")], one)
    assert not versions.is_same(TEMPLATE, [], None)
