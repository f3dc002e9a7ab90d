"""Rendering: what the agent is given (contract 7.3), and what is refused by name."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import render
from resources.render import NotFrozen, Unsupported

Json = dict[str, Any]


def rendered(template: Json, **how: Any) -> Json:
    return render.render(template, name="d1", labels={}, **how).rendered


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def inline(*files: Json) -> Json:
    return {"config": [{"name": "a", "inline": list(files)}]}


def test_an_empty_spec_has_the_three_lists() -> None:
    assert rendered({}) == {"applications": [], "config": [], "consoles": []}


def test_files_become_one_provider_without_a_name_in_the_order_of_the_list() -> None:
    template = {
        "config": [
            {"name": "a", "inline": [{"path": "/etc/a", "content": "ä\n"}]},
            {
                "name": "b",
                "inline": [
                    {
                        "path": "/etc/b",
                        "content": encoded("b"),
                        "contentEncoding": "base64",
                        "mode": 0,
                        "user": "1000",
                        "group": "users",
                    }
                ],
            },
        ]
    }
    assert rendered(template)["config"] == [
        {
            "name": "",
            "inline": [
                {
                    "path": "/etc/a",
                    "content": encoded("ä\n"),
                    "contentEncoding": "base64",
                    "mode": 420,
                    "user": "root",
                },
                {
                    "path": "/etc/b",
                    "content": encoded("b"),
                    "contentEncoding": "base64",
                    "mode": 0,
                    "user": "1000",
                    "group": "users",
                },
            ],
        }
    ]


def test_a_later_file_of_a_path_takes_the_first_ones_place() -> None:
    template = inline(
        {"path": "/a", "content": "1"}, {"path": "/b", "content": "2"}, {"path": "/a"}
    )
    (provider,) = rendered(template)["config"]
    assert [(f["path"], f["content"]) for f in provider["inline"]] == [("/a", ""), ("/b", "Mg==")]


def test_a_provider_without_files_is_no_provider() -> None:
    assert rendered({"config": [{"name": "a", "inline": []}]})["config"] == []


@pytest.mark.parametrize(
    ("os", "expected"),
    [({"image": "os:1"}, {"image": "os:1"}), ({"image": ""}, None), ({}, None), (None, None)],
)
def test_the_os_is_its_image_or_is_not_there(os: Json | None, expected: Json | None) -> None:
    assert rendered({"os": os}).get("os") == expected


def test_a_container_says_as_whom_it_runs() -> None:
    applications = [
        {"name": "a", "appType": "container", "image": "i"},
        {"name": "b", "appType": "container", "image": "i", "runAs": "me"},
        {"name": "c", "appType": "compose", "image": "i"},
    ]
    found = rendered({"applications": applications})["applications"]
    assert [a.get("runAs") for a in found] == ["", "me", None]


def test_the_other_parts_go_through_and_what_stands_beside_a_template_does_not() -> None:
    parts = {
        "resources": [{"a": 1}],
        "systemd": {"b": 2},
        "updatePolicy": {},
        "decommissioning": {},
    }
    result = render.render(
        parts | {"conditions": [], "updatedAt": "now", "consoles": [{"sessionID": "1"}]},
        name="d1",
        labels={},
    )
    assert result.spec == parts | {"consoles": [{"sessionID": "1"}]}
    assert {key: result.rendered[key] for key in parts} == parts
    assert result.rendered["consoles"] == [{"sessionID": "1"}]


def test_the_spec_stays_as_it_was_written() -> None:
    template = inline({"path": "/etc/a", "content": "plain"})
    result = render.render(template, name="d1", labels={})
    assert result.spec == template
    assert result.spec is not template


@pytest.mark.parametrize("key", ["gitRef", "httpRef", "secretRef"])
def test_content_from_outside_is_not_frozen_and_the_message_says_where(key: str) -> None:
    template = {"config": [{"name": "a", "inline": []}, {"name": "b", key: {"repository": "r"}}]}
    with pytest.raises(NotFrozen, match=rf"^spec\.config\[1\]\.{key}"):
        render.check(template, "spec")


@pytest.mark.parametrize(
    ("template", "path"),
    [
        pytest.param({"os": {"catalogItemRef": {}}}, "os.catalogItemRef", id="catalog"),
        pytest.param(
            {"applications": [{"catalogItemRef": {}}]},
            r"applications\[0\].catalogItemRef",
            id="catalog application",
        ),
        pytest.param({"applications": [{"appType": "vm"}]}, r"applications\[0\].appType", id="vm"),
    ],
)
def test_what_is_not_rendered_yet_is_refused_by_field(template: Json, path: str) -> None:
    with pytest.raises(Unsupported, match=rf"^{path}: "):
        rendered(template)


def test_in_a_devices_own_spec_braces_are_text() -> None:
    template = inline({"path": "/a", "content": "{{ .x }}"})
    (provider,) = rendered(template, templated=False)["config"]
    assert provider["inline"][0]["content"] == encoded("{{ .x }}")


files = st.fixed_dictionaries(
    {"path": st.sampled_from(["/a", "/b", "/c"]), "content": st.text("ab{ä\n", max_size=5)},
    optional={
        "mode": st.integers(0, 0o7777),
        "user": st.sampled_from(["me", "0"]),
        "group": st.just("g"),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "os": st.fixed_dictionaries({"image": st.sampled_from(["", "os:1"])}),
        "config": st.lists(st.builds(lambda f: {"name": "n", "inline": f}, st.lists(files))),
        "applications": st.lists(
            st.fixed_dictionaries({"name": st.just("a"), "appType": st.sampled_from(["container"])})
        ),
        "systemd": st.just({"matchPatterns": ["a*"]}),
    },
)


@given(templates)
def test_rendering_what_was_rendered_changes_nothing_and_nothing_given_is_touched(
    template: Json,
) -> None:
    before = copy.deepcopy(template)
    once = rendered(template, templated=False)
    assert rendered(once, templated=False) == once
    assert template == before
    paths = [f["path"] for p in once["config"] for f in p["inline"]]
    assert len(paths) == len(set(paths))
