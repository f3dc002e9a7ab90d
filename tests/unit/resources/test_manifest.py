"""Manifests: one digest for the same files, nothing that could unseat the agent, nothing lost."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import digest, manifest, render
from resources.errors import Invalid
from resources.manifest import File, Frozen

Json = dict[str, Any]
A, B = digest.of_bytes(b"a"), digest.of_bytes(b"b")

paths = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3).map(lambda p: "/" + "/".join(p))
trees = st.lists(
    st.builds(
        File,
        path=paths,
        digest=st.sampled_from([A, B]),
        size=st.integers(0, 100),
        mode=st.sampled_from([0o644, 0o755, 0]),
        user=st.sampled_from(["root", "me"]),
        group=st.sampled_from(["", "users"]),
    ),
    unique_by=lambda file: file.path,
)


@given(trees, st.randoms())
def test_the_order_in_which_files_came_does_not_matter(files: list[File], random: Any) -> None:
    body = manifest.document(files)
    random.shuffle(files)
    assert manifest.document(files) == body
    assert manifest.parse(body) == tuple(sorted(files, key=lambda file: file.path))


@given(trees, trees)
def test_two_manifests_are_equal_exactly_if_their_files_are(one: list[File], other: Any) -> None:
    assert (manifest.document(one) == manifest.document(other)) == (set(one) == set(other))


@pytest.mark.parametrize(
    "path",
    [
        "etc/motd",
        "/etc/../x",
        "/etc/flightctl/config.yaml",
        "/etc/flightctl/certs/ca.crt",
        "/var/lib/flightctl/x",
        "/usr/lib/flightctl/hooks.d/x",
        "/a:b",
        "/",
    ],
)
def test_a_path_that_is_not_the_devices_to_give_is_refused(path: str) -> None:
    assert [e.path for e in manifest.check([File(path, A, 1)])] == ["files"]


@pytest.mark.parametrize(
    ("file", "word"),
    [
        pytest.param(File("/a", A, manifest.FILE_BYTES_MAX + 1), "at most", id="too large"),
        pytest.param(File("/a", A, 1, mode=0o10000), "mode", id="mode"),
        pytest.param(File("/b", A, 1), "twice", id="twice"),
    ],
)
def test_other_faults_of_a_file_are_named(file: File, word: str) -> None:
    (found,) = manifest.check([File("/b", B, 1), file])
    assert word in found.detail


def test_too_many_files_are_one_complaint() -> None:
    files = [File(f"/f{n}", A, 1) for n in range(manifest.FILES_MAX + 1)]
    (found,) = manifest.check(files)
    assert "at most" in found.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"files":[{}]}',
        b'{"files":[1]}',
        digest.canonical({"files": [{"path": "/a", "digest": "x", "size": 1}]}),
        digest.canonical({"files": [{"path": 1, "digest": A, "size": 1}]}),
        digest.canonical({"files": [{"path": "/a", "digest": A, "size": "1"}]}),
        digest.canonical({"files": [{"path": "/a", "digest": A, "size": 1, "x": 1}]}),
        digest.canonical({"files": [{"path": "a", "digest": A, "size": 1}]}),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        manifest.parse(body)


def test_a_file_cannot_be_the_directory_of_another() -> None:
    assert manifest.check_whole(["/etc/a", "/etc/b/c"], 10) is None
    problem = manifest.check_whole(["/etc/a", "/etc/a/b/c"], 10)
    assert problem is not None
    assert '"/etc/a"' in problem
    assert "/etc/a/b/c" in problem
    assert "together" in (manifest.check_whole([], manifest.SPEC_BYTES_MAX + 1) or "")


# --- rendering ----------------------------------------------------------------------------------


def source(name: str, key: str) -> Json:
    return {"name": name, key: {"repository": "r"}}


def inline(name: str, *paths: str) -> Json:
    return {"name": name, "inline": [{"path": p, "content": name} for p in paths]}


def rendered(template: Json, frozen: Frozen) -> dict[str, tuple[bytes, int, str]]:
    result = render.render(template, name="", labels={}, frozen=frozen)
    assert result.spec == template
    return {
        file["path"]: (base64.b64decode(file["content"]), file["mode"], file["user"])
        for provider in result.rendered["config"]
        for file in provider["inline"]
    }


def test_frozen_files_are_rendered_with_mode_and_owner() -> None:
    files = (File("/bin/x", A, 1, 0o755), File("/etc/s", B, 1, 0o600, "1000", "users"))
    frozen = Frozen({"base": files}, {A: b"a", B: b"\xff\0"})
    template = {"config": [source("base", "gitRef")]}
    assert rendered(template, frozen) == {
        "/bin/x": (b"a", 0o755, "root"),
        "/etc/s": (b"\xff\0", 0o600, "1000"),
    }
    result = render.render(template, name="", labels={}, frozen=frozen).rendered
    assert [f.get("group") for f in result["config"][0]["inline"]] == [None, "users"]


def test_a_later_source_overrides_an_earlier_one_and_keeps_its_place() -> None:
    template = {
        "config": [source("one", "gitRef"), inline("two", "/b", "/c"), source("three", "httpRef")]
    }
    frozen = Frozen(
        {"one": (File("/a", A, 1), File("/b", A, 1)), "three": (File("/a", B, 1),)},
        {A: b"a", B: b"b"},
    )
    found = rendered(template, frozen)
    assert list(found) == ["/a", "/b", "/c"]
    assert [content for content, _, _ in found.values()] == [b"b", b"two", b"two"]


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(["/a", "/b", "/c"]))), max_size=5))
def test_merging_is_that_the_last_word_counts(providers: list[tuple[bool, set[str]]]) -> None:
    """For any mix of sources, each path has the content of the last source that gives it."""
    config, files, expected = [], {}, {}
    for number, (is_outside, given_paths) in enumerate(providers):
        name = f"p{number}"
        config.append(source(name, "gitRef") if is_outside else inline(name, *sorted(given_paths)))
        if is_outside:
            digest_ = digest.of_bytes(name.encode())
            files[name] = [File(p, digest_, 2) for p in sorted(given_paths)]
        for path in sorted(given_paths):
            expected[path] = name.encode()
    blobs = {digest.of_bytes(name.encode()): name.encode() for name in files}
    found = rendered({"config": config}, Frozen(files, blobs))
    assert {path: content for path, (content, _, _) in found.items()} == expected
    assert list(found) == list(expected)


def test_a_source_that_is_not_frozen_is_refused_by_field() -> None:
    template = {"config": [source("one", "gitRef"), source("two", "secretRef")]}
    with pytest.raises(render.NotFrozen, match=r"^config\[1\]\.secretRef"):
        rendered(template, Frozen({"one": ()}, {}))


def test_one_secret_file_makes_the_whole_a_secret() -> None:
    keyed = digest.keyed(b"key", b"x")
    assert keyed != digest.keyed(b"other", b"x")
    assert manifest.is_digest(keyed)
    assert Frozen({"s": (File("/s", keyed, 1),)}, {}).is_secret
    assert not Frozen({"s": (File("/s", A, 1),)}, {}).is_secret
