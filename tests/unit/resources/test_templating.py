"""Templates: the same text as Go's, or an error that says where and what; and never for long."""

from __future__ import annotations

import json
import time

import pytest

from resources import templating
from resources.templating import TemplateError, Used
from tests.fakes.gotemplates import DEVICES, TABLE

# What Go accepts and we do not: the first five are of no use, numbers are whole here, printf has no
# verbs for Go's types, nothing is nil, and no text is an array of bytes.
REFUSED = {
    '{{"a" | }}', "{{$ := 1}}", "{{($x := 1)}}", "{{if false}}{{upper}}{{end}}",
    "{{if false}}{{.spec.x}}{{end}}",
    "{{1.5}}", "{{1e3}}", "{{2i}}", '{{printf "%.1f" 1.5}}', '{{printf "%1000d" 1}}',
    '{{printf "%U" 42}}', '{{printf "%T" 42}}', '{{printf "%*d" 5 1}}',
    '{{printf "%[2]d %[1]d" 1 2}}', '{{printf "%v" .metadata.labels}}',
    *(f'{{{{printf "%q" {number}}}}}' for number in (
        42, -42, 0, -1, 128512, 55296, 9223372036854775807, -9223372036854775808)),
    "{{print nil}}", "{{eq nil nil}}", '{{"\\xff"}}', '{{index "abc" 1}}',
    "{{index .metadata.labels}}", "{{$x := .metadata.labels}}{{$x.site}}",
    "{{with .metadata}}{{.name}}{{end}}", "{{with $}}{{.metadata.name}}{{end}}",
    "{{range .metadata.labels}}{{.}}{{end}}", '{{define "x"}}{{end}}',
    '{{define "x"}}a{{end}}{{template "x"}}', '{{block "x" .}}a{{end}}',
}  # fmt: skip


def made(template: str, name: str = "dev1", is_strict: bool = True, **labels: str) -> str:
    return templating.parse(template).evaluate(name, labels, is_strict=is_strict)


def complaint(template: str, **labels: str) -> str:
    with pytest.raises(TemplateError) as caught:
        made(template, **labels)
    return str(caught.value)


def test_the_recorded_templates_give_what_go_gave() -> None:
    """As `tests/fakes/gotemplates.py` recorded it. Where Go writes its complaint into the text
    (`%!d(string=x)`), there is an error here."""
    refused, rows = set(), TABLE.read_text().splitlines()
    assert len(rows) > 1000
    for row in map(json.loads, rows):
        for (name, labels, is_strict), text in zip(DEVICES, row["texts"], strict=True):
            try:
                ours = made(row["template"], name, is_strict, **labels)
            except TemplateError:
                if text is not None and "%!" not in text:
                    refused.add(row["template"])
                continue
            assert ours == text, (row["template"], name)
    assert refused == REFUSED


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("os:{{ .metadata.labels.site }}", 'line 1, column 7: the device has no label "site"'),
        ("a\nb {{- if true }}{{ .metadata.labels.x }}{{end}}",
         'line 2, column 20: the device has no label "x"'),
        ("{{range .metadata.labels}}", "line 1, column 3: range cannot be used in a template"),
        ('{{block "x" .}}{{end}}', "line 1, column 3: block cannot be used in a template"),
        ("{{if true}}\n{{else}}{{template .x}}{{end}}",
         "line 2, column 11: template cannot be used in a template"),
        ("{{print nil}}", "line 1, column 9: nil cannot be used in a template"),
        ("{{foo}}", "line 1, column 3: there is no function foo"),
        ("{{upper}}", "line 1, column 3: upper takes 1 argument, not 0"),
        ("{{eq 1}}", "line 1, column 3: eq takes 2 or more arguments, not 1"),
        ('{{slice "a" 1 2 3}}', "line 1, column 3: slice takes 1 to 3 arguments, not 4"),
        ("{{and}}", "line 1, column 3: and takes one argument or more"),
        ("{{.}}", f"line 1, column 3: . cannot be used in a template; {templating._KNOWN}"),
        ("{{$}}", f"line 1, column 3: $ cannot be used in a template; {templating._KNOWN}"),
        ("{{.spec.os}}",
         f"line 1, column 3: .spec.os cannot be used in a template; {templating._KNOWN}"),
        ("{{if false}}{{$.metadata}}{{end}}",
         f"line 1, column 15: $.metadata cannot be used in a template; {templating._KNOWN}"),
        ("{{.metadata.labels.a-b}}",
         "line 1, column 21: unexpected '-'; a label with such a name is read by "
         'index .metadata.labels "…"'),
        ("{{.metadata.labels.5g}}",
         "line 1, column 19: unexpected '.'; a label with such a name is read by "
         'index .metadata.labels "…"'),
        ("{{with .metadata.name}}{{.metadata.name}}{{end}}",
         "line 1, column 26: inside with, . is its value: write $.metadata.name"),
        ("{{with .metadata.labels}}{{.metadata.name}}{{end}}",
         "line 1, column 28: inside with, . is its value: write $.metadata.name"),
        ("{{with 1}}{{.x}}{{end}}",
         "line 1, column 13: .x is not there: write it from $, as $.metadata.name"),
        ("{{$x := 1}}{{$x.a}}", f"line 1, column 14: $x has no fields; {templating._KNOWN}"),
        ("{{$y}}", "line 1, column 3: the variable $y is not set"),
        ('{{("a").x}}', "line 1, column 8: there are no fields behind parentheses"),
        ('{{"a" "b"}}', 'line 1, column 3: "a" is not a function and takes no arguments'),
        ('{{1 | "a"}}', "line 1, column 7: after | there must be a function"),
        ('{{print"a"}}', "line 1, column 8: unexpected '\"'"),
        ('{{print ("a")"b"}}', "line 1, column 14: unexpected '\"b\"'; put a blank before it"),
        ('{{("a"}}', "line 1, column 7: unexpected '}}' in parentheses"),
        ("{{1)}}", "line 1, column 4: unexpected ')'"),
        ("{{", "line 1, column 1: the action is not closed: end it with }}"),
        ("{{/* x", "line 1, column 1: the comment is not closed: end it with */}}"),
        ("{{/* x */ .metadata.name}}",
         "line 1, column 10: a comment ends with */}} and has its action to itself"),
        ('{{"a}}', "line 1, column 3: the quoted text is not closed"),
        ('{{"\\q"}}', 'line 1, column 3: "\\q" is no text: unknown escape, or not Unicode'),
        ("{{1.5}}", "line 1, column 3: 1.5 is no whole number of 64 bits"),
        ("{{}}", "line 1, column 3: a value is missing"),
        ("{{if true}}", "line 1, column 3: if has no end"),
        ("{{if true}}{{else}}", "line 1, column 3: if has no end"),
        ("{{end}}", "line 1, column 3: there is no if or with that it belongs to"),
        ("{{if true}}{{else}}{{else}}{{end}}",
         "line 1, column 22: there has been an else without a condition already"),
        ("{{print else}}", "line 1, column 9: else is out of place"),
        ('{{printf "%d" "a"}}', "line 1, column 3: printf: %d does not go with a text"),
        ('{{printf "%d"}}', "line 1, column 3: printf has no value for %d"),
        ('{{printf "%"}}', "line 1, column 3: printf: % has no verb"),
        ('{{printf "a" 1}}', 'line 1, column 3: printf has 1 more values than "a" takes'),
        ('{{eq 1 "a"}}', "line 1, column 3: a number and a text cannot be compared"),
        ("{{lt true false}}",
         "line 1, column 3: a truth value is neither more nor less than another"),
        ('{{slice "ä" 1}}',
         "line 1, column 3: slice: it counts bytes, and would cut a character in two"),
        ("{{upper (len 1)}}", "line 1, column 10: a number has no length"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(template: str, said: str) -> None:
    assert complaint(template) == said


def test_a_label_that_is_missing_is_empty_when_a_fleet_is_validated() -> None:
    template = templating.parse("a{{ .metadata.labels.site }}b{{ .metadata.name }}")
    template.check()
    assert template.evaluate("name", {}, is_strict=False) == "abname"


def test_an_error_of_evaluation_shows_in_validation_too() -> None:
    with pytest.raises(TemplateError, match="column 3: slice: 1 is outside a text of 0 bytes"):
        templating.parse("{{slice .metadata.labels.site 1}}").check()


@pytest.mark.parametrize(
    ("template", "used"),
    [
        ("plain", Used()),
        ("{{ .metadata.name }}", Used(name=True)),
        ("{{ $.metadata.labels.site }}", Used(labels=frozenset({"site"}))),
        ('{{ index .metadata.labels "a-b" }}', Used(labels=frozenset({"a-b"}))),
        ('{{ getOrDefault .metadata.labels "a" "b" }}', Used(labels=frozenset({"a"}))),
        ('{{ "a" | index .metadata.labels }}', Used(labels=frozenset({"a"}))),
        ('{{ getOrDefault .metadata.labels "a" .metadata.labels.b }}',
         Used(labels=frozenset({"a", "b"}))),
        ("{{ index .metadata.labels .metadata.name }}", Used(name=True, every_label=True)),
        ("{{ .metadata.labels }}", Used(every_label=True)),
        ("{{ len .metadata.labels }}", Used(every_label=True)),
        ("{{ .metadata.labels | len }}", Used(every_label=True)),
        ("{{ or .metadata.labels 1 }}", Used(every_label=True)),
        ("{{ $x := .metadata.labels }}", Used(every_label=True)),
        ("{{ with $x := .metadata.labels }}{{ end }}", Used(every_label=True)),
        ("{{ with .metadata.labels }}{{ .a }}{{ end }}", Used(labels=frozenset({"a"}))),
        ('{{ with .metadata.labels }}{{ index . "a" }}{{ end }}', Used(labels=frozenset({"a"}))),
        ("{{ with .metadata.labels }}{{ . }}{{ end }}", Used(every_label=True)),
        ("{{ if false }}{{ .metadata.labels.a }}{{ else }}{{ .metadata.name }}{{ end }}",
         Used(name=True, labels=frozenset({"a"}))),
    ],
)  # fmt: skip
def test_what_of_a_device_is_used_is_known_without_evaluating(template: str, used: Used) -> None:
    assert templating.parse(template).uses == used


def test_blocks_and_parentheses_have_a_depth() -> None:
    def nested(depth: int) -> str:
        return "{{if true}}" * depth + "x" + "{{end}}" * depth

    assert made(nested(templating.MAX_DEPTH)) == "x"
    assert "nested deeper than 10" in complaint(nested(templating.MAX_DEPTH + 1))
    assert made("{{" + "(" * 10 + '"x"' + ")" * 10 + "}}") == "x"
    assert "nested deeper than 10" in complaint("{{" + "(" * 11 + '"x"' + ")" * 11 + "}}")


def test_a_chain_of_else_if_may_be_long() -> None:
    chain = "".join(f'{{{{else if eq .metadata.name "{i}"}}}}{i}' for i in range(2000))
    assert made("{{if false}}" + chain + "{{end}}", name="1999") == "1999"


DOUBLED = '{{$x := "0123456789"}}' + '{{$x = printf "%s%s" $x $x}}' * 60


@pytest.mark.parametrize(
    "template",
    [
        DOUBLED,
        DOUBLED.replace('printf "%s%s"', "print"),
        DOUBLED.replace('printf "%s%s" $x $x', 'replace "" $x $x'),
        '{{$x := printf "%999d" 1}}' + "{{$x = print $x $x}}" * 10 + "{{$x}}" * 1000,
        '{{$x := printf "%999d" 1}}' + "{{$x = print $x $x}}" * 10 + "{{eq $x $x}}" * 10_000,
        "{{$x := `\\`}}" + "{{$x = js $x}}" * 100,
        "{{printf `" + "%999d" * 16_000 + "`" + " 1" * 16_000 + "}}",
        "{{" + "print " * 60_000 + "}}",
        "{{1}}" * 200_000,
        "{{/**/}}{{" + " " * 1_000_000 + "}}",
        "{{" * 500_000,
        "{{`" + "x" * 1_048_570,
    ],
    ids=range(12),
)
def test_no_template_takes_long_or_grows(template: str) -> None:
    begun = time.process_time()
    complaint(template)
    assert time.process_time() - begun < 3


def test_the_result_is_no_longer_than_a_file() -> None:
    assert len(made("x" * templating.MAX_RESULT)) == templating.MAX_RESULT
    assert "longer than 1 MiB" in complaint("x" * templating.MAX_RESULT + "{{.metadata.name}}")


def test_a_parsed_template_is_kept() -> None:
    assert templating.parse("a {{.metadata.name}}") is templating.parse("a {{.metadata.name}}")


def test_ten_thousand_devices_are_done_in_the_blink_of_an_eye() -> None:
    template = templating.parse("quay.io/acme/os:{{ .metadata.labels.version }}")
    devices = [{"version": f"v{number}"} for number in range(10_000)]
    begun = time.process_time()
    texts = [template.evaluate("d", labels) for labels in devices]
    # Some 0.03 s; ten times it on a machine that has other things to do.
    assert time.process_time() - begun < 0.3
    assert texts[-1] == "quay.io/acme/os:v9999"
