"""Where the files of a tree land, and which links are followed."""

from __future__ import annotations

import pytest

from controllers import gitfiles
from controllers.gitmirror import Entry, EntryKind
from controllers.sources import Unusable

FILE, LINK, MODULE = EntryKind.FILE, EntryKind.SYMLINK, EntryKind.SUBMODULE


def tree(*files: str, links: dict[str, str] | None = None) -> dict[str, str]:
    """path → the path of the file whose bytes stand there."""
    links = links or {}
    entries = [Entry(path, FILE, 1, path) for path in files]
    entries += [Entry(path, LINK, 1, path) for path in links]
    targets = {path: target.encode() for path, target in links.items()}
    return {path: entry.blob for path, entry in gitfiles.resolved(entries, targets).items()}


@pytest.mark.parametrize(
    ("link", "target", "file"),
    [
        ("d/l", "a", "d/a"),
        ("d/l", "./a", "d/a"),
        ("l", "d/a", "d/a"),
        ("d/e/l", "../a", "d/a"),
        ("d/l", "../d/a", "d/a"),
    ],
)
def test_a_link_to_a_file_of_the_tree_has_its_bytes(link: str, target: str, file: str) -> None:
    assert tree("d/a", "d/e/f", links={link: target})[link] == file


def test_links_lead_through_links() -> None:
    chain = {f"l{n}": f"l{n + 1}" for n in range(5)} | {"l5": "d/a"}
    assert tree("d/a", links=chain)["l0"] == "d/a"


@pytest.mark.parametrize(
    "links",
    [
        pytest.param({"l": "/etc/passwd"}, id="absolute"),
        pytest.param({"l": "/d/a"}, id="absolute, though there is such a file"),
        pytest.param({"l": "../../d/a"}, id="out of the tree"),
        pytest.param({"l": "d"}, id="directory"),
        pytest.param({"l": "nothing"}, id="dangling"),
        pytest.param({"l": "m", "m": "l"}, id="circle"),
        pytest.param({"l": ""}, id="empty"),
    ],
)
def test_a_link_to_anything_else_is_refused_by_name(links: dict[str, str]) -> None:
    with pytest.raises(Unusable, match='"l" is a symlink to') as caught:
        tree("d/a", links=links)
    assert caught.value.field == "gitRef.path"


def test_a_submodule_and_a_name_that_is_no_text_are_refused() -> None:
    with pytest.raises(Unusable, match="submodule"):
        gitfiles.resolved([Entry("m", MODULE, 0, "c")], {})
    with pytest.raises(Unusable, match="UTF-8"):
        tree("a\udcff")
    with pytest.raises(Unusable, match="symlink"):
        gitfiles.resolved([Entry("m", MODULE, 0, "c"), Entry("l", LINK, 1, "b")][::-1], {"l": b"m"})


@pytest.mark.parametrize(
    ("name", "root", "place"),
    [
        ("etc/a", "", "/etc/a"),
        ("device/etc/a", "device", "/etc/a"),
        ("device/etc/a", "device/etc", "/a"),
        ("device/etc/a", "device/etc/a", "/a"),
    ],
)
def test_files_land_relative_to_what_was_asked_for(name: str, root: str, place: str) -> None:
    assert gitfiles.placed(name, root) == place
