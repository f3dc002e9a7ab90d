"""Parameters in a fleet's template: where they may stand, and what becomes of them for a device."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from resources import digest, parameters, references, render
from resources.errors import Invalid
from resources.manifest import File, Frozen
from resources.parameters import Unresolved
from resources.templating import Used

Json = dict[str, Any]

SITE = "{{ .metadata.labels.site }}"
NAME = "{{ .metadata.name }}"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def inline(**file: Any) -> Json:
    return {"config": [{"name": "a", "inline": [{"path": "/etc/a", "content": ""} | file]}]}


def git(**reference: str) -> Json:
    given = {"repository": "r", "targetRevision": "main", "path": "/"} | reference
    return {"config": [{"name": "a", "gitRef": given}]}


def http(**reference: str) -> Json:
    return {"config": [{"name": "a", "httpRef": {"repository": "r", "filePath": "/f"} | reference}]}


def secret(**reference: str) -> Json:
    given = {"name": "s", "namespace": "n", "mountPath": "/m"} | reference
    return {"config": [{"name": "a", "secretRef": given}]}


def app(**fields: Any) -> Json:
    return {"applications": [{"name": "a", "appType": "compose"} | fields]}


def compose(image: str) -> Json:
    content = f"services: {{web: {{image: '{image}'}}}}"
    return app(inline=[{"path": "compose.yaml", "content": content}])


COMPOSE = "services: {web: {image: quay.io/acme/web:1}}"
FIELDS: list[tuple[str, Json]] = [
    ("os.image", {"os": {"image": f"os:{SITE}"}}),
    ("config[0].inline[0].path", inline(path=f"/etc/{SITE}")),
    ("config[0].inline[0].content", inline(content=SITE)),
    (
        "config[0].inline[0].content",
        inline(content=encoded(f"\0{SITE}"), contentEncoding="base64"),
    ),
    ("config[0].gitRef.targetRevision", git(targetRevision=SITE)),
    ("config[0].gitRef.path", git(path=f"/{SITE}")),
    ("config[0].httpRef.suffix", http(suffix=f"/{SITE}")),
    ("config[0].httpRef.filePath", http(filePath=f"/etc/{SITE}")),
    ("config[0].secretRef.name", secret(name=SITE)),
    ("config[0].secretRef.namespace", secret(namespace=SITE)),
    ("config[0].secretRef.mountPath", secret(mountPath=f"/etc/{SITE}")),
    ("applications[0].image", app(image=f"quay.io/acme/web:{SITE}")),
    ("applications[0].inline[0].path", app(inline=[{"path": SITE, "content": COMPOSE}])),
    (
        "applications[0].inline[0].content",
        app(inline=[{"path": "docker-compose.yaml", "content": COMPOSE + f" # {SITE}"}]),
    ),
    ("applications[0].envVars[A]", app(image="i", envVars={"A": SITE})),
    (
        "applications[0].volumes[0].image.reference",
        app(image="i", volumes=[{"name": "v", "image": {"reference": f"data:{SITE}"}}]),
    ),
]
IDS = [f"{number}-{path}" for number, (path, _) in enumerate(FIELDS)]


@pytest.mark.parametrize(("path", "template"), FIELDS, ids=IDS)
def test_these_fields_are_templates(path: str, template: Json) -> None:
    assert [field.path for field in parameters.fields(template)] == [path]
    assert parameters.uses(template) == Used(labels=frozenset({"site"}))
    with pytest.raises(Unresolved) as caught:
        parameters.resolve(copy.deepcopy(template), "d1", {})
    assert str(caught.value).startswith(f"{path}: line 1, column ")
    assert str(caught.value).endswith(': the device has no label "site"')


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(git(repository=SITE), id="repository"),
        pytest.param({"config": [{"name": SITE, "inline": []}]}, id="name of a source"),
        pytest.param(inline(user=SITE, group=SITE), id="owner of a file"),
        pytest.param(app(name=SITE), id="name of an application"),
        pytest.param(app(envVars={SITE: "a"}), id="name of a variable"),
        pytest.param(app(values={"a": SITE}, namespace=SITE, valuesFiles=[SITE]), id="helm"),
        pytest.param(app(volumes=[{"name": SITE, "mount": {"path": SITE}}]), id="mount"),
        pytest.param(
            app(volumes=[{"image": {"catalogItemRef": {"item": SITE}}}]), id="catalog item"
        ),
        pytest.param({"systemd": {"matchPatterns": [SITE]}}, id="systemd"),
        pytest.param({"resources": [{"path": SITE}]}, id="resources"),
        pytest.param({"updatePolicy": {"updateSchedule": {"at": SITE}}}, id="updatePolicy"),
        pytest.param(inline(content="%%%", contentEncoding="base64"), id="no base64"),
        pytest.param(inline(content=encoded("{ {"), contentEncoding="base64"), id="no braces"),
        pytest.param(inline(content="} } { { }}"), id="braces apart"),
    ],
)
def test_braces_anywhere_else_are_text(template: Json) -> None:
    assert list(parameters.fields(template)) == []
    assert list(parameters.check(template)) == []
    assert not parameters.uses(template)


@pytest.mark.parametrize("template", [None, {}, {"os": None}, {"config": [1, {"inline": [2]}]}])
def test_a_document_of_any_shape_is_looked_at(template: Any) -> None:
    assert list(parameters.fields(template or {})) == []


def test_a_device_gets_its_values() -> None:
    template = {
        "os": {"image": f"quay.io/acme/os:{SITE}"},
        **inline(path=f"/etc/{NAME}", content=f"site={SITE}\n"),
        **app(image=f"quay.io/acme/web:{SITE}", envVars={"SITE": '{{ upper "x" }}'}),
    }
    before = copy.deepcopy(template)
    result = render.render(template, name="d1", labels={"site": "berlin"})
    assert result.spec["os"] == result.rendered["os"] == {"image": "quay.io/acme/os:berlin"}
    (file,) = result.rendered["config"][0]["inline"]
    assert (file["path"], file["content"]) == ("/etc/d1", encoded("site=berlin\n"))
    (application,) = result.rendered["applications"]
    assert application["image"] == "quay.io/acme/web:berlin"
    assert application["envVars"] == {"SITE": "X"}
    assert template == before


def test_content_in_base64_is_a_template_byte_for_byte() -> None:
    content = base64.b64encode(b"\xff\xfe" + SITE.encode() + b"\x80").decode()
    template = inline(content=content, contentEncoding="base64")
    result = render.render(template, name="d1", labels={"site": "ä"})
    (file,) = result.spec["config"][0]["inline"]
    assert base64.b64decode(file["content"]) == b"\xff\xfe\xc3\xa4\x80"
    wrong = base64.b64encode(b'{{ len `\xff` }}{{ len "\xff" }}').decode()
    (complaint,) = parameters.check(inline(content=wrong, contentEncoding="base64"))
    assert "is no text" in complaint.detail


def test_everything_that_is_wrong_for_a_device_is_said_at_once() -> None:
    template = {
        "os": {"image": "quay.io/acme/os:{{ .metadata.labels.version }}"},
        **inline(content=f"a\n{SITE}"),
        **app(image="i", envVars={"A": "{{ .metadata.labels.a }}"}),
    }
    with pytest.raises(Unresolved) as caught:
        render.render(template, name="d1", labels={"site": "x"})
    assert str(caught.value) == (
        'os.image: line 1, column 20: the device has no label "version"; '
        'applications[0].envVars[A]: line 1, column 4: the device has no label "a"'
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (inline(path="/{{ .metadata.labels.p }}"), "config[0].inline[0].path: /etc/fl"),
        (inline(path="/etc/{{ .metadata.labels.up }}"), "config[0].inline[0].path: "),
        (
            {"config": [
                {"name": "a", "inline": [{"path": "/b", "content": ""}]},
                {"name": "c", "inline": [{"path": "/{{ .metadata.labels.b }}", "content": ""}]},
            ]},
            "config[1].inline[0].path: ",
        ),
        (
            {"config": [
                {"name": "a", "inline": [{"path": "/b/c", "content": ""}]},
                {"name": "c", "inline": [{"path": "/{{ .metadata.labels.b }}", "content": ""}]},
            ]},
            'config: "/b" is both a file and the directory of /b/c',
        ),
        ({"os": {"image": "os:{{ .metadata.labels.up }}"}}, "os.image: "),
        (app(image="i", envVars={"A": "{{ .metadata.labels.none }}"}),
         "applications[0].envVars[A]: a value has 1 to 253 characters"),
        (app(inline=[{"path": "{{ .metadata.labels.b }}", "content": COMPOSE}]),
         "applications[0].inline[0].path: "),
        (app(inline=[{"path": "docker-compose.yaml", "content": "a: {{ .metadata.labels.b }}"}]),
         "applications[0].inline[0].content: has no services"),
        (inline(content="{{ .metadata.labels.b }}" + "x" * (1 << 20)),
         "config[0].inline[0].content: line 1, column 1: the result is longer than 1 MiB"),
    ],
    ids=range(9),
)  # fmt: skip
def test_no_label_leads_to_what_nobody_may_write(template: Json, said: str) -> None:
    labels = {"p": "etc/flightctl/certs/x", "up": "..", "b": "b", "none": ""}
    with pytest.raises(Unresolved) as caught:
        render.render(template, name="d1", labels=labels)
    assert str(caught.value).startswith(said)


DECIDING = (".targetRevision", ".gitRef.path", ".suffix", ".name", ".namespace")


@pytest.mark.parametrize(("path", "template"), [f for f in FIELDS if "Ref" in f[0]])
def test_what_decides_what_is_fetched_is_needed_by_the_device(path: str, template: Json) -> None:
    """Where the files go is not: they are the same wherever they are put."""
    decides = path.endswith(DECIDING)
    assert references.are_open(template) == decides
    render.check(template, frozen=() if decides else ("a",))
    needed = render.needed(template, name="d", labels={"site": "x"})
    if not decides:
        assert needed == []
        return
    (one,) = needed
    assert (one.input, one.path) == ("a", path.rpartition(".")[0])
    assert "x" in one.values[path.rpartition(".")[2]]


def test_a_device_needs_what_its_values_come_to_and_nothing_else_of_it() -> None:
    template = git(targetRevision="{{ upper .metadata.labels.ring }}", path="/{{ `a` }}")
    needed = [render.needed(template, name=n, labels={"ring": r}) for n, r in ("ab", "cb", "dB")]
    assert needed[0] == needed[1] == needed[2]
    assert needed[0][0].values == {"targetRevision": "B", "path": "/a"}
    keys = {needed[0][0].key(version) for version in ("uid-1", "uid-2")}
    assert len(keys) == 2, "another version may have other bytes"
    (other,) = render.needed(template, name="a", labels={"ring": "c"})
    assert other.key("uid-1") not in keys
    assert str(needed[0][0]) == '(targetRevision "B", path "/a")'


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("gitRef.path", 'config[0].gitRef.path "/a": gone'),
        ("gitRef.repository", 'config[0].gitRef.repository (targetRevision "b", path "/a"): gone'),
        ("httpRef.suffix", 'config[0].gitRef (targetRevision "b", path "/a"): gone'),
    ],
)
def test_why_a_value_is_missing_names_field_and_value(field: str, said: str) -> None:
    template = git(targetRevision="{{ .metadata.labels.ring }}", path="/a")
    (needed,) = render.needed(template, name="d", labels={"ring": "b"})
    assert needed.told(field, "gone") == said


def test_the_provider_is_filled_with_what_was_needed() -> None:
    template = http(suffix=f"/{SITE}")
    (needed,) = render.needed(template, name="d", labels={"site": "x"})
    filled = references.filled(template, "a", needed.values)
    assert filled is not None
    assert filled[0] == "config[0].httpRef"
    assert filled[1]["httpRef"] == {"repository": "r", "filePath": "/f", "suffix": "/x"}
    moving = references.filled(http(suffix=f"/{SITE}", filePath=SITE), "a", needed.values)
    assert moving is not None
    assert moving[1]["httpRef"]["filePath"] == references.STAND_IN
    assert references.filled(template, "b", needed.values) is None
    assert references.filled(http(suffix="/x"), "a", needed.values) is None


def test_nothing_is_fetched_for_a_device_that_cannot_be_rendered_anyway() -> None:
    """All that is wrong is said together, and no source is asked for the sake of a mistake."""
    template = http(suffix=f"/{SITE}") | {"os": {"image": "os:{{ .metadata.labels.ring }}"}}
    with pytest.raises(Unresolved) as caught:
        render.needed(template, name="d", labels={})
    assert [error.path for error in caught.value.errors] == ["os.image", "config[0].httpRef.suffix"]
    with pytest.raises(Unresolved, match=r"^config\[0\]\.secretRef\.name: "):
        render.needed(secret(name=f"s-{SITE}"), name="d", labels={"site": "Not_A_Name"})
    with pytest.raises(Unresolved, match=r"^config\[0\]\.gitRef\.targetRevision: "):
        render.needed(git(targetRevision=f" {SITE}"), name="d", labels={"site": ""})
    long = http(suffix=f"/{'x' * 2_049}{SITE}")
    with pytest.raises(Unresolved, match=r"^config\[0\]\.httpRef\.suffix: 2051 characters"):
        render.needed(long, name="d", labels={"site": "x"})


def test_values_are_checked_together_with_everything_else_of_the_device() -> None:
    blob = digest.of_bytes(b"x")
    template = {"config": [*git(path=f"/{SITE}")["config"], inline(path="/etc/a/b")["config"][0]]}
    template["config"][1]["name"] = "b"

    def rendered(**files: int) -> Json:
        given = [File(path, blob, size) for path, size in files.items()]
        frozen = Frozen({"a": given}, {blob: b"x"})
        return render.evaluate(template, name="d", labels={"site": "x"}, frozen=frozen).rendered

    (provider,) = rendered(**{"/etc/c": 1})["config"]
    assert [file["path"] for file in provider["inline"]] == ["/etc/c", "/etc/a/b"]
    with pytest.raises(
        Unresolved, match=r"^config: \"/etc/a\" is both a file and the directory of"
    ):
        rendered(**{"/etc/a": 1})
    with pytest.raises(Unresolved, match=r"^config: the files have \d+ bytes together"):
        rendered(**{"/etc/c": 33 << 20})


def test_frozen_files_go_where_the_device_wants_them() -> None:
    blob = digest.of_bytes(b"x")
    template = {
        "config": [
            {"name": "h", "httpRef": {"repository": "r", "filePath": f"/etc/{NAME}/h"}},
            {
                "name": "s",
                "secretRef": {"name": "s", "namespace": "n", "mountPath": f"/etc/{SITE}"},
            },
            {"name": "g", "gitRef": {"repository": "r", "targetRevision": "m", "path": "/"}},
        ]
    }
    files = {
        "h": [File("/-", blob, 1)],
        "s": [File("/-/k", blob, 1), File("/-/l", blob, 1)],
        "g": [File("/g", blob, 1)],
    }
    frozen = Frozen(files, {blob: b"x"})

    def paths(site: str) -> list[str]:
        how: Json = {"name": "d1", "labels": {"site": site}, "frozen": frozen}
        (provider,) = render.render(template, **how).rendered["config"]
        return [file["path"] for file in provider["inline"]]

    assert paths("x") == ["/etc/d1/h", "/etc/x/k", "/etc/x/l", "/g"]
    with pytest.raises(Unresolved, match=r"^config\[1\]\.secretRef\.mountPath: /etc/flightctl/ce"):
        paths("flightctl/certs")
    assert files["s"][0].path == "/-/k"


def test_a_secret_never_becomes_the_agents_own_configuration() -> None:
    blob = digest.of_bytes(b"x")
    frozen = Frozen({"a": [File("/-/config.yaml", blob, 1)]}, {blob: b"x"})
    template = secret(mountPath=f"/etc/{SITE}")
    with pytest.raises(Unresolved, match=r"^config\[0\]\.secretRef\.mountPath: /etc/flightctl/co"):
        render.render(template, name="d", labels={"site": "flightctl"}, frozen=frozen)


def test_what_a_template_uses_is_that_of_all_its_fields() -> None:
    template = {**inline(content=NAME), **app(envVars={"A": SITE, "B": "{{ .metadata.labels.b }}"})}
    assert parameters.uses(template) == Used(name=True, labels=frozenset({"site", "b"}))
    assert not parameters.uses({"os": {"image": "os:1"}})
    with pytest.raises(Invalid, match=r"^os.image: Invalid value: line 1, column 6: "):
        parameters.uses({"os": {"image": "a:{{ x }}"}})


def test_a_template_that_no_device_can_have_is_refused_by_field() -> None:
    with pytest.raises(Invalid, match=r"^spec.os.image: Invalid value: line 1, column 6: there is"):
        render.check({"os": {"image": "a:{{ x }}"}}, "spec")
    render.check({"os": {"image": "a:{{ x }}"}}, templated=False)
