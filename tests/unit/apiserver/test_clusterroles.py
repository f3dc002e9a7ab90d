"""The roles as Kubernetes has them: the file in the tree is the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiserver.auth import clusterroles, roles

ROOT = Path(__file__).parents[3]


def test_the_committed_file_is_the_table(tmp_path: Path) -> None:
    assert (ROOT / clusterroles.FILE).read_text() == clusterroles.text(), "run: make crds"
    assert clusterroles.main(tmp_path) == 0
    assert (tmp_path / clusterroles.FILE).read_text() == clusterroles.text()


@pytest.mark.parametrize("document", clusterroles.documents(), ids=clusterroles.NAMES)
def test_no_wildcard_and_nothing_that_is_for_the_controllers_alone(
    document: dict[str, object],
) -> None:
    text = str(document)
    assert "*" not in text
    name = document["metadata"]["name"]  # type: ignore[index]
    assert ("repositories/credentials" in text) is (name == "homeport-controllers")


def test_every_role_that_is_given_out_is_there() -> None:
    assert set(clusterroles.NAMES.values()) == set(roles.ROLES)
