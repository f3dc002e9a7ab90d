"""The rules for templates that clients of flightctl rely on, one by one: what is refused when a
fleet is applied, what only the device that lacks something is told, and what comes out."""

from __future__ import annotations

from typing import Any

import pytest

from resources import registry, render, validation
from resources.parameters import Unresolved
from tests.contract.data import wrong_documents as wrong

Json = dict[str, Any]

NAME = "gate-1"
LABELS = {"site": "Berlin", "ring": "2", "empty": "", "a-b": "hyphen", "acme.com/zone": "north"}
AT_ONCE, ON_THE_DEVICE = "refused when it is applied", "told by the device"

# rule, template, what becomes of it
RULES = [
    ("text without braces stays", "plain } { text", "plain } { text"),
    ("the name of the device", "{{ .metadata.name }}", "gate-1"),
    ("a label by its name", "{{ .metadata.labels.site }}", "Berlin"),
    ("from the root by a dollar", "{{ $.metadata.labels.site }}", "Berlin"),
    ("a label with a hyphen by index", '{{ index .metadata.labels "a-b" }}', "hyphen"),
    ("a label with a prefix by index", '{{ index .metadata.labels "acme.com/zone" }}', "north"),
    ("a hyphen in a path is no name", "{{ .metadata.labels.a-b }}", AT_ONCE),
    ("an empty label is there", "<{{ .metadata.labels.empty }}>", "<>"),
    ("a missing label by its name", "{{ .metadata.labels.missing }}", ON_THE_DEVICE),
    ("a missing label from the root", "{{ $.metadata.labels.missing }}", ON_THE_DEVICE),
    ("a missing label by index is empty", '<{{ index .metadata.labels "missing" }}>', "<>"),
    ("a default", '{{ getOrDefault .metadata.labels "missing" "x" }}', "x"),
    ("no default is needed", '{{ getOrDefault .metadata.labels "site" "x" }}', "Berlin"),
    ("an empty label needs no default", '<{{ getOrDefault .metadata.labels "empty" "x" }}>', "<>"),
    ("a missing label that nobody reads",
     "{{ if false }}{{ .metadata.labels.missing }}{{ end }}ok", "ok"),
    ("a missing label in a condition",
     "{{ if .metadata.labels.missing }}a{{ else }}b{{ end }}", ON_THE_DEVICE),
    ("whether there is a label",
     '{{ if index .metadata.labels "missing" }}a{{ else }}b{{ end }}', "b"),
    ("if, else if, else",
     '{{ if eq .metadata.labels.ring "1" }}a{{ else if eq .metadata.labels.ring "2" }}b'
     "{{ else }}c{{ end }}", "b"),
    ("with and its dot", "{{ with .metadata.labels.site }}<{{ . }}>{{ end }}", "<Berlin>"),
    ("with of nothing",
     '{{ with index .metadata.labels "missing" }}a{{ else }}b{{ end }}', "b"),
    ("inside with the root has a dollar",
     "{{ with .metadata.labels.site }}{{ $.metadata.name }}{{ end }}", "gate-1"),
    ("inside with there is no other root",
     "{{ with .metadata.labels.site }}{{ .metadata.name }}{{ end }}", AT_ONCE),
    ("upper", "{{ upper .metadata.labels.site }}", "BERLIN"),
    ("lower in a pipe", "{{ .metadata.labels.site | lower }}", "berlin"),
    ("replace old new input", '{{ replace "er" "-" .metadata.labels.site }}', "B-lin"),
    ("replace in a pipe", '{{ .metadata.labels.site | replace "n" "" }}', "Berli"),
    ("what is no text has no case", "<{{ upper 1 }}{{ lower true }}>", "<>"),
    ("what is no text has nothing to replace", '<{{ replace "1" "2" 11 }}>', "<>"),
    ("comparisons", '{{ and (ne "a" "b") (lt 1 2) (le 2 2) (gt 2 1) (ge 2 2) }}', "true"),
    ("and, or, not", '{{ or (and "" "x") (not "") }}', "true"),
    ("printf and len", '{{ printf "%s-%03d" .metadata.name (len .metadata.labels.site) }}',
     "gate-1-006"),
    ("blanks are taken away", "a  {{- 1 -}}  b", "a1b"),
    ("range", "{{ range .metadata.labels }}{{ end }}", AT_ONCE),
    ("define", '{{ define "x" }}{{ end }}', AT_ONCE),
    ("template", '{{ template "x" }}', AT_ONCE),
    ("block", '{{ block "x" . }}{{ end }}', AT_ONCE),
    ("break", "{{ break }}", AT_ONCE),
    ("other fields", "{{ .spec.os.image }}", AT_ONCE),
    ("other metadata", "{{ .metadata.owner }}", AT_ONCE),
    ("other fields in a branch that never runs", "{{ if false }}{{ .status }}{{ end }}", AT_ONCE),
    ("an unknown function", "{{ env }}", AT_ONCE),
    ("ten deep", "{{ if true }}" * 10 + "x" + "{{ end }}" * 10, "x"),
    ("eleven deep", "{{ if true }}" * 11 + "x" + "{{ end }}" * 11, AT_ONCE),
    ("an error with no labels at all", "{{ slice .metadata.labels.site 2 }}", AT_ONCE),
    ("an error with some labels only",
     '{{ if eq .metadata.name "name" }}{{ else }}{{ slice .metadata.name 9 }}{{ end }}',
     ON_THE_DEVICE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "outcome"), [row[1:] for row in RULES], ids=[row[0] for row in RULES]
)
def test_the_rule(template: str, outcome: str) -> None:
    spec = wrong.inline(content=template)
    complaints = validation.validate(registry.by_kind("Fleet"), wrong.fleet(spec))
    assert bool(complaints) == (outcome == AT_ONCE), complaints
    if complaints:
        return
    if outcome == ON_THE_DEVICE:
        with pytest.raises(Unresolved, match=r"^config\[0\]\.inline\[0\]\.content: line 1, column"):
            render.render(spec, name=NAME, labels=LABELS)
        return
    rendered = render.render(spec, name=NAME, labels=LABELS)
    assert rendered.spec["config"][0]["inline"][0]["content"] == outcome


@pytest.mark.parametrize(
    ("image", "is_right"),
    [
        ("quay.io/acme/os:{{ .metadata.labels.ring }}", True),
        ("quay.io/acme/os:v{{ .metadata.labels.ring }}-x", True),
        ("quay.io/acme/os:{{ .metadata.labels.ring }}@sha256:" + "a" * 64, True),
        ("quay.io/{{ .metadata.labels.site }}/os:1", False),
        ("{{ .metadata.labels.site }}", False),
        ("quay.io/acme/os@{{ .metadata.labels.site }}", False),
    ],
)
def test_of_an_image_only_the_tag_is_a_template(image: str, is_right: bool) -> None:
    spec = {"os": {"image": image}}
    complaints = validation.validate(registry.by_kind("Fleet"), wrong.fleet(spec))
    assert bool(complaints) != is_right, complaints


@pytest.mark.parametrize(
    "reference",
    [
        {"gitRef": {"repository": "r", "targetRevision": "{{ .metadata.labels.v }}", "path": "/"}},
        {"gitRef": {"repository": "r", "targetRevision": "m", "path": "{{ .metadata.name }}"}},
        {"httpRef": {"repository": "r", "suffix": "{{ .metadata.name }}", "filePath": "/a"}},
        {"httpRef": {"repository": "r", "filePath": "{{ .metadata.labels.path }}"}},
        {"secretRef": {"name": "{{ .metadata.name }}", "namespace": "n", "mountPath": "/a"}},
        {"secretRef": {"name": "s", "namespace": "{{ .metadata.name }}", "mountPath": "/a"}},
        {"secretRef": {"name": "s", "namespace": "n", "mountPath": "{{ .metadata.labels.path }}"}},
    ],
    ids=lambda reference: str(next(iter(reference))),
)
def test_a_form_is_not_asked_for_before_the_value_is_known(reference: Json) -> None:
    """`name` without labels would be no path, and is no error; what comes out is checked."""
    spec = {"config": [{"name": "a", **reference}]}
    assert validation.validate(registry.by_kind("Fleet"), wrong.fleet(spec)) == []
