"""Our templates against Go's own text/template, which is built here from Go's standard library.

Left out where there is no Go; the unit tests hold what it said when the table was recorded.
"""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources import templatefuncs, templating
from resources.templating import TemplateError
from tests.fakes import gotemplates
from tests.fakes.gotemplates import DEVICES, LABELS, TABLE, GoTemplates

pytestmark = pytest.mark.skipif(
    not gotemplates.has_go(), reason="no go on this machine: nothing to compare templates with"
)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoTemplates]:
    with gotemplates.running(tmp_path_factory.mktemp("go")) as program:
        yield program


def test_the_recorded_table_is_what_go_says(go: GoTemplates) -> None:
    for row in map(json.loads, TABLE.read_text().splitlines()):
        assert [go.ask(row["template"], *device) for device in DEVICES] == row["texts"]


EXAMPLES = 5_000 if os.environ.get("HOMEPORT_SOAK") else 150


# --- templates that nobody wrote ------------------------------------------------------------

# The two know other versions of Unicode, so what is a letter is left to the table.
TEXTS = st.text(string.printable.replace("\r", "") + "ä€😀", max_size=8)
PLAIN = TEXTS.filter(lambda text: "{" not in text and "}" not in text)
BLANKS = st.sampled_from([" ", "  ", "\n", "\t "])
LABEL = st.sampled_from([*LABELS, "absent"])
FIELD_NAMES = st.sampled_from(["site", "stage", "version", "n", "empty", "absent"])
VARIABLES = st.sampled_from(["$a", "$b"])


def quoted(text: str) -> str:
    # JSON's escapes are Go's, but for characters beyond 16 bits, which are written as they are.
    return json.dumps(text, ensure_ascii=False)


SCALARS = st.one_of(
    TEXTS.map(quoted), st.integers(-300, 300).map(str), st.sampled_from(["true", "false"])
)
OPERANDS = st.one_of(
    SCALARS,
    st.just(".metadata.name"),
    st.just(".metadata.labels"),
    st.just("$.metadata.name"),
    FIELD_NAMES.map(".metadata.labels.{}".format),
    FIELD_NAMES.map("$.metadata.labels.{}".format),
    LABEL.map('(index .metadata.labels "{}")'.format),
    LABEL.map('(getOrDefault .metadata.labels "{}" "x")'.format),
    VARIABLES,
    st.just("."),
)
VERBS = st.builds(
    "%{}{}{}{}".format,
    st.text("-+# 0", max_size=3),
    st.sampled_from(["", "", "1", "7"]),
    st.sampled_from(["", "", ".", ".0", ".3"]),
    st.sampled_from("vsdxXqtboOc"),
)
FORMATS = st.lists(VERBS | PLAIN, max_size=3).map(lambda parts: quoted("".join(parts)))
FUNCTIONS = st.sampled_from(sorted([*templatefuncs.FUNCTIONS, "and", "or"])).filter("printf".__ne__)


def calls(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arguments = st.lists(inner, min_size=1, max_size=3).map(" ".join)
    call = st.builds("{} {}".format, FUNCTIONS, arguments)
    printed = st.builds("printf {} {}".format, FORMATS, arguments)
    piped = st.builds("{} | {}".format, inner, FUNCTIONS | (call | printed))
    return (call | printed | piped).map("({})".format)


VALUES = st.recursive(OPERANDS, calls, max_leaves=5)
OPENING, CLOSING = st.sampled_from(["{{", "{{- "]), st.sampled_from(["}}", " -}}"])


def action(said: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{}{}{}".format, OPENING, said, CLOSING)


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    head = st.builds("{} {}".format, st.sampled_from(["if", "with"]), VALUES)
    bare = st.tuples(action(head), inner, action(st.just("end")))
    chain = st.tuples(
        action(VALUES.map("if {}".format)),
        inner,
        action(VALUES.map("else if {}".format)),
        inner,
        action(st.just("else")),
        inner,
        action(st.just("end")),
    )
    several = st.lists(inner, min_size=2, max_size=4)
    return st.one_of(bare, chain, several).map("".join)


PARTS = st.one_of(
    PLAIN,
    BLANKS,
    action(VALUES),
    action(st.builds("{} {} {}".format, VARIABLES, st.sampled_from([":=", "="]), VALUES)),
    action(st.just("/* said */")),
)
# Set first, so that most of what follows finds them.
TEMPLATES = st.recursive(PARTS, blocks, max_leaves=6).map(
    lambda body: '{{$a := "A"}}{{$b := 2}}' + body
)


# Complaints that are ours alone; the unit tests say of each that it is meant.
AT_SIGHT = re.compile(
    r"cannot be used in a template|takes \S+( \w+ \S+)? arguments?|has no fields|is not there"
    r"|inside with"
)
WHEN_RUN = re.compile(r"index takes the labels|cut a character|%\S* does not go with the labels")


def ours(template: str, name: str, labels: dict[str, str], strict: bool) -> str | TemplateError:
    try:
        return templating.parse(template).evaluate(name, labels, is_strict=strict)
    except TemplateError as problem:
        return problem


def agree(theirs: str | None, mine: str | TemplateError, own: re.Pattern[str]) -> bool:
    """Equal texts, or an error on both sides. Ours may be the only one where Go writes one into the
    text, and if it is one of our own."""
    if isinstance(mine, str):
        return mine == theirs
    return theirs is None or "%!" in theirs or bool(own.search(str(mine)))


@given(TEMPLATES, st.sampled_from(DEVICES))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_template_gives_what_go_gives(
    go: GoTemplates, template: str, device: tuple[str, dict[str, str], bool]
) -> None:
    # What printf complains of need not be printed; the next test looks at printf itself.
    own = re.compile(f"{AT_SIGHT.pattern}|{WHEN_RUN.pattern}|printf")
    assert agree(go.ask(template, *device), ours(template, *device), own)


@given(
    st.builds("{{{{printf {} {}}}}}".format, FORMATS, st.lists(SCALARS, max_size=3).map(" ".join))
)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_format_gives_what_go_gives(go: GoTemplates, template: str) -> None:
    own = re.compile("%[-+# 0-9.]*q does not go with a number")
    assert agree(go.ask(template, *DEVICES[0]), ours(template, *DEVICES[0]), own)
