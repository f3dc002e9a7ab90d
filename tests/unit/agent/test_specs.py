"""Specifications read, and the three files that both agents keep."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors, specs, world
from agent.states import Target
from tests.fakes.sim_device import application, document, file
from tests.fakes.sim_world import Node, SimWorld

DATA, OWN = "/var/lib/flightctl", "/var/lib/flightctl/homeport"


def test_a_rendered_device_is_read() -> None:
    device = document(
        7,
        [
            file("/etc/a", "text", mode=0o4755, user="web", group="staff"),
            {"path": "/etc/b", "content": "plain"},
        ],
        [
            application(
                "web",
                "r/web:1",
                envVars={"B": "2", "A": "1"},
                ports=["8080:80"],
                volumes=[{"name": "data", "mount": {"path": "/data"}}],
                resources={"limits": {"cpu": "0.5", "memory": "64m"}},
                desiredState="stopped",
                restartGeneration=3,
            ),
            {"appType": "container", "image": "r/nameless"},
        ],
        updatePolicy={"updateSchedule": {"at": "* * * * *", "startGraceDuration": "1m"}},
    )
    found = specs.parse(device)
    assert found.target == Target("7", "hash-7")
    assert found.files == (
        specs.FileSpec("/etc/a", b"text", 0o4755, "web", "staff"),
        specs.FileSpec("/etc/b", b"plain", 0o644, "root", "root"),
    )
    web, nameless = found.applications
    assert web == specs.Application(
        "web",
        "container",
        "r/web:1",
        env=(("A", "1"), ("B", "2")),
        ports=("8080:80",),
        volumes=(specs.Volume("data", "/data"),),
        cpu="0.5",
        memory="64m",
        is_stopped=True,
        restart_generation=3,
    )
    assert nameless.name == "r/nameless"
    assert found.update_window is not None
    assert found.download_window is None
    assert found.policy_objection is None
    assert not found.is_dismissed
    assert found.objection is None


def test_a_policy_that_cannot_be_read_objects_to_beginning_and_not_to_looking_after() -> None:
    found = specs.parse(document(1, [], [], updatePolicy={"downloadSchedule": {"at": "@daily"}}))
    assert found.objection is None
    assert found.policy_objection is not None
    assert found.policy_objection.component == "download policy"
    assert "spec.updatePolicy.downloadSchedule.at" in found.policy_objection.detail


def test_only_the_first_provider_counts_and_of_one_path_the_last_entry() -> None:
    device = document(1, [file("/a", "one"), file("/b", "b"), file("/a", "two")], [])
    device["spec"]["config"].append({"name": "x", "inline": [file("/c", "c")]})
    found = specs.parse(device)
    assert [(f.path, f.content) for f in found.files] == [("/b", b"b"), ("/a", b"two")]


@pytest.mark.parametrize(
    ("spec", "component", "words"),
    [
        ({"config": {}}, "config", "config is not a list"),
        ({"config": ["x"]}, "config", "is not an object"),
        ({"config": [{"inline": ["x"]}]}, "config", "is not an object"),
        ({"config": [{"inline": [{"path": "rel", "content": ""}]}]}, "config", "not an absolute"),
        ({"config": [{"inline": [{"path": "/a/../b"}]}]}, "config", "not an absolute"),
        ({"config": [{"inline": [{"path": "/"}]}]}, "config", "not an absolute"),
        ({"config": [{"inline": [{"path": "/a", "mode": 0o10000}]}]}, "config", "file mode"),
        ({"config": [{"inline": [{"path": "/a", "mode": "644"}]}]}, "config", "file mode"),
        ({"config": [{"inline": [{"path": "/a", "content": 1}]}]}, "config", "not a string"),
        (
            {"config": [{"inline": [{"path": "/a", "content": "?", "contentEncoding": "base64"}]}]},
            "config",
            "not base64",
        ),
        (
            {"config": [{"inline": [{"path": "/a", "content": "", "contentEncoding": "gzip"}]}]},
            "config",
            "'gzip' is unknown",
        ),
        ({"applications": ["x"]}, "applications", "is not an object"),
        ({"applications": [{"appType": "container"}]}, "applications", "neither name nor image"),
        (
            {"applications": [{"name": "a", "image": "i"}, {"name": "a", "image": "j"}]},
            "applications",
            "two applications",
        ),
        ({"applications": [{"name": "a", "envVars": []}]}, "applications", "envVars is not"),
        ({"applications": [{"name": "a", "volumes": [{}]}]}, "applications", "has no name"),
    ],
)
def test_what_is_wrong_is_said_and_the_version_is_known_all_the_same(
    spec: dict[str, Any], component: str, words: str
) -> None:
    device = {**document(7, [], []), "spec": spec}
    found = specs.parse(device)
    assert found.target.version == "7"
    assert found.objection is not None
    assert found.objection.component == component
    assert words in found.objection.detail


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
keys = st.sampled_from(
    ["config", "inline", "applications", "os", "updatePolicy", "volumes", "name", "image", "path"]
)


@given(st.dictionaries(keys, junk | st.dictionaries(keys, junk) | st.lists(junk)))
def test_no_specification_whatever_raises(spec: dict[str, Any]) -> None:
    specs.parse({"metadata": {"annotations": {}}, "spec": spec})
    specs.parse({"metadata": spec, "spec": spec})
    specs.parse(spec)


def test_contents_and_environments_do_not_leak_into_logs() -> None:
    device = document(1, [file("/a", "hunter2")], [application("w", "i", envVars={"P": "hunter2"})])
    found = specs.parse(device)
    assert "hunter2" not in repr(found)


V1, V2 = document(1, [], []), document(2, [], [])
T1, T2 = specs.target_of(V1), specs.target_of(V2)


def kept(**named: bytes | dict[str, Any]) -> tuple[SimWorld, specs.SpecFiles]:
    where = SimWorld()
    where.mkdir(OWN)
    for name, content in named.items():
        folder = OWN if name == "committed" else DATA
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        where.nodes[f"{folder}/{name}.json"] = Node(world.FILE, raw)
    return where, specs.SpecFiles(where, DATA, OWN)


def versions(found: specs.SpecFiles) -> tuple[str, str]:
    return specs.target_of(found.current).version, specs.target_of(found.desired).version


@pytest.mark.parametrize(
    ("given_files", "committed", "refused", "ends"),
    [
        ({}, None, None, ("0", "0")),
        ({"current": V1, "desired": V2}, T1, None, ("1", "2")),
        # Cut off between the commit and the files.
        ({"current": V1, "desired": V2}, T2, None, ("2", "2")),
        # Cut off between the refusal and the files.
        ({"current": V1, "desired": V2}, T1, T2, ("1", "1")),
        # Rot.
        ({"current": b"", "desired": V2, "committed": V1}, T1, None, ("1", "2")),
        ({"current": b"{", "desired": V1}, T1, None, ("1", "1")),
        ({"current": b"[1]", "desired": V2}, None, None, ("0", "2")),
        ({"current": V1, "desired": b"x"}, T1, None, ("1", "1")),
        ({"current": b"x", "desired": b"x", "committed": b"x"}, T1, None, ("0", "0")),
        # Another agent has been here since: the file is the newer truth.
        ({"current": V2, "desired": V2}, T1, None, ("2", "2")),
    ],
)
def test_the_files_are_healed(
    given_files: dict[str, Any],
    committed: Target | None,
    refused: Target | None,
    ends: tuple[str, str],
) -> None:
    where, found = kept(**given_files)
    found.load(committed, refused)
    assert versions(found) == ends
    again = specs.SpecFiles(where, DATA, OWN)
    again.load(committed, refused)
    assert versions(again) == ends
    for name in (specs.CURRENT, specs.DESIRED, specs.ROLLBACK):
        assert json.loads(where.nodes[f"{DATA}/{name}"].data)["kind"] == "Device"


def test_a_cycle_leaves_what_the_other_agent_can_read() -> None:
    where, found = kept()
    found.load(None, None)
    found.want(V2)
    assert json.loads(where.nodes[f"{DATA}/desired.json"].data) == V2
    found.committed()
    assert json.loads(where.nodes[f"{DATA}/current.json"].data) == V2
    rollback = json.loads(where.nodes[f"{DATA}/rollback.json"].data)
    assert rollback["metadata"]["annotations"][specs.VERSION] == ""
    found.want(document(3, [], []))
    found.abandoned()
    assert json.loads(where.nodes[f"{DATA}/desired.json"].data) == V2
    assert all(n.mode == 0o600 for p, n in where.nodes.items() if p.endswith(".json"))


def test_a_specification_with_a_fault_names_its_kind_of_fault() -> None:
    found = specs.parse(document(1, [{"path": "x"}], []))
    assert found.objection is not None
    assert found.objection.cause == errors.INVALID_ARGUMENT
