"""Compose: which files count, what they name, and how it is called."""

from __future__ import annotations

import pytest
import yaml

from agent import compose
from agent.specs import AppFile, Application, Volume

FOLDER = "/etc/compose/manifests/stack"
BASE = "services: {a: {image: quay.io/o/a:1}, b: {image: quay.io/o/b:1, profiles: [debug]}}\n"


def render(files: dict[str, str], **fields: object) -> compose.Rendered:
    app = Application("stack", "compose", inline=(), **fields)  # type: ignore[arg-type]
    return compose.render(app, [AppFile(k, v.encode()) for k, v in files.items()])


def test_services_that_run_by_default_are_expected_and_all_images_are_fetched() -> None:
    rendered = render({"docker-compose.yaml": BASE, "conf/app.ini": "x"})
    assert rendered.services == ("a",)
    assert rendered.images == ("quay.io/o/a:1", "quay.io/o/b:1")
    assert rendered.names == ("docker-compose.yaml",)
    assert f"{FOLDER}/conf/app.ini" in rendered.files


def test_an_override_changes_images_and_comes_second() -> None:
    override = "services: {a: {image: quay.io/o/a:2}}\n"
    files = {"podman-compose.yml": BASE, "podman-compose.override.yaml": override}
    rendered = render(files)
    assert rendered.names == ("podman-compose.yml", "podman-compose.override.yaml")
    assert rendered.images == ("quay.io/o/a:2", "quay.io/o/b:1")


def test_volumes_of_the_agent_are_external_under_their_generated_names() -> None:
    rendered = render(
        {"docker-compose.yaml": BASE}, volumes=(Volume("data", "", "quay.io/o/data:1"),)
    )
    assert rendered.names[-1] == "99-compose-flightctl-agent.override.yaml"
    data, _ = rendered.files[f"{FOLDER}/{rendered.names[-1]}"]
    known = {"external": True, "name": "stack-data-577833"}
    assert yaml.safe_load(data) == {"volumes": {"data": known}}


def test_the_environment_is_for_root_alone_and_quoted_where_it_must_be() -> None:
    env = (("A", "plain-1.2"), ("B", "two words $HOME"), ("C", "it's"))
    data, mode = render({"docker-compose.yaml": BASE}, env=env).files[f"{FOLDER}/.env"]
    assert mode == 0o600
    assert data == b"A=plain-1.2\nB='two words $HOME'\nC=\"it's\"\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"compose.yaml": BASE}, "no Compose file"),
        ({"docker-compose.yaml": "a: [}"}, "not YAML in line 1"),
        ({"docker-compose.yaml": "volumes: {}"}, "no services"),
        ({"docker-compose.yaml": "services: {a: 1}"}, "service a is not an object"),
        ({"docker-compose.yaml": "services: {a: {}}"}, "service a: image"),
        ({"docker-compose.yaml": "services: {a: {image: nginx}}"}, "not fully qualified"),
        (
            {"docker-compose.yaml": "services: {a: {image: q.io/a, container_name: x}}"},
            "container_name",
        ),
        ({"docker-compose.yaml": "services: {a: {image: q.io/a, build: .}}"}, "build"),
    ],
)
def test_what_is_no_project_is_refused(files: dict[str, str], words: str) -> None:
    with pytest.raises(compose.Invalid) as caught:
        render(files)
    assert words in str(caught.value)


def test_up_creates_what_is_missing_and_nothing_else() -> None:
    argv = compose.up_argv(("podman", "compose"), "stack-1", ["docker-compose.yaml"])
    words = "podman compose -p stack-1 -f docker-compose.yaml up -d --no-recreate"
    assert " ".join(argv) == words
