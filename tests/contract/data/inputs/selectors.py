"""Bad selectors, of labels and of fields: the grammar, the fields that there are, the operators,
and how many; for lists, watches and deletions of many.

Said by Kubernetes with 400 and the name of the parameter.
"""

from __future__ import annotations

from urllib.parse import quote

from tests.contract.data.inputs.names import collection
from tests.contract.data.inputs.row import GROUP, PLACE, PLAIN, Bad, by_admin

FLEETS, DEVICES = f"{PLACE}/fleets", f"{PLACE}/devices"
LABELS, FIELDS = "labelSelector", "fieldSelector"


def selected(
    id: str, name: str, text: str, target: str, more: str = "", method: str = "GET"
) -> Bad:
    row = by_admin(method, f"{target}?{name}={quote(text)}{more}")
    return Bad(id, row, 400, name)


def labels(id: str, text: str, target: str = FLEETS, more: str = "") -> Bad:
    return selected(f"labels-{id}", LABELS, text, target, more)


def fields(id: str, text: str, target: str = FLEETS, more: str = "") -> Bad:
    return selected(f"fields-{id}", FIELDS, text, target, more)


def raw(id: str, name: str, text: str) -> Bad:
    """Encoded already, or wrongly."""
    return Bad(f"raw-{id}", by_admin("GET", f"{FLEETS}?{name}={text}"), 400, name)


def too_long(id: str, name: str, text: str) -> Bad:
    """More than a request's first line may have; no form is agreed on before it was read."""
    row = by_admin("GET", f"{FLEETS}?{name}={text}")
    return Bad(f"too-long-{id}", row, 400, "got more than 8190 bytes", PLAIN)


def deleted(id: str, name: str, text: str) -> Bad:
    """Which must not delete everything instead."""
    return selected(f"deleted-{id}", name, text, FLEETS, method="DELETE")


OF_LABELS = [
    labels("comma", ","),
    labels("comma-first", ",a=b"),
    labels("comma-last", "a=b,"),
    labels("commas", "a=b,,c=d"),
    labels("equals", "="),
    labels("no-key", "=b"),
    labels("no-key-unequal", "!=b"),
    labels("not-of-nothing", "!"),
    labels("not-twice", "!!a"),
    labels("two-equals", "a=b=c"),
    labels("three-equals", "a===b"),
    labels("unequal-in-sql", "a<>b"),
    labels("greater", "a>1"),
    labels("less-or-equal", "a<=1"),
    labels("like", "a~b"),
    labels("blank-in-key", "a b"),
    labels("blank-in-value", "a=b c"),
    labels("in-without-values", "a in"),
    labels("in-without-parentheses", "a in b"),
    labels("in-open", "a in (b"),
    labels("in-closed-twice", "a in (b))"),
    labels("in-in-capitals", "a IN (b)"),
    labels("in-of-nothing", "in (b)"),
    labels("not-in-in-two-words", "a not in (b)"),
    labels("and", "a=b and c=d"),
    labels("or", "a=b||c=d"),
    labels("parentheses", "()"),
    labels("parentheses-around", "(a=b)"),
    labels("closed-before-opened", ")a("),
    labels("rows-of-another-length", "(a,b) in ((x,y),(z))"),
    labels("rows-cut", "(a,b) in ((x,y)"),
    labels("quoted", "'a'='b'"),
    labels("semicolon", "a=b;c=d"),
    labels("json", '{"a":"b"}'),
    labels("key-with-two-slashes", "a/b/c=d"),
    labels("key-with-a-slash-first", "/a=b"),
    labels("key-with-a-slash-last", "a/=b"),
    labels("key-with-a-prefix-in-capitals", "Example.com/a=b"),
    labels("key-too-long", f"{'k' * 64}=b"),
    labels("key-with-a-prefix-too-long", f"{'p' * 254}/k=b"),
    labels("key-ends-with-a-dash", "a-=b"),
    labels("key-unicode", "größe=b"),
    labels("key-nul", "a\0=b"),
    labels("value-too-long", f"a={'v' * 64}"),
    labels("value-with-a-slash", "a=b/c"),
    labels("value-ends-with-a-dash", "a=b-"),
    labels("value-unicode", "a=ü"),
    labels("value-nul", "a=b\0"),
    labels("value-line-end", "a=b\nc"),
    labels("value-of-in-too-long", f"a in ({'v' * 64})"),
    labels("value-of-in-with-a-blank", "a in (b c)"),
    labels("of-a-watch", "a=b=c", FLEETS, "&watch=true&timeoutSeconds=1"),
    labels("of-all-namespaces", "a in", f"{GROUP}/fleets"),
    labels("of-devices", "(a,b) in ((x))", DEVICES),
]

OF_FIELDS = [
    fields("unknown", "spec.selector=x"),
    fields("unknown-of-devices", "spec.os.image=x", DEVICES),
    fields("of-another-kind", "status.summary.status=Online"),
    fields("in-capitals", "METADATA.NAME=one"),
    fields("with-a-dot-first", ".metadata.name=one"),
    fields("without-prefix", "name=one"),
    fields("uid", "metadata.uid=x"),
    fields("labels", "metadata.labels.a=b"),
    fields("a-column-of-the-store", "namespace=x"),
    fields("nothing-equals", "=one"),
    fields("equals", "="),
    fields("comma", ","),
    fields("comma-last", "metadata.name=one,"),
    fields("commas", "metadata.name=a,,metadata.name=b"),
    fields("not-of-nothing", "!"),
    fields("two-words", "metadata.name one"),
    fields("like", "metadata.name~one"),
    fields("contains-nothing", "metadata.name contains "),
    fields("contains-everything", "metadata.name contains %"),
    fields("contains-in-capitals", "metadata.name CONTAINS o"),
    fields("in-open", "metadata.name in (one"),
    fields("closed-twice", "metadata.name in (one))"),
    fields("bad-escape", "metadata.name=a\\b"),
    fields("escape-at-the-end", "metadata.name=a\\"),
    fields("statement", "metadata.name=x' OR '1'='1,x=1"),
    fields("nul", "metadata.name=one\0"),
    fields("nul-in-key", "metadata.name\0=one"),
    fields("nul-in-a-list", "metadata.name in (a,\0)"),
    fields("nul-contained", "metadata.name contains \0"),
    fields("nul-of-devices", "metadata.name=\0", DEVICES),
    fields("nul-in-owner", "metadata.owner=Fleet/\0", DEVICES),
    fields("line-end", "spec\n=x"),
    fields("of-a-watch", "spec.nothing=x", FLEETS, "&watch=true&timeoutSeconds=1"),
    fields("nul-of-a-watch", "metadata.name=\0", FLEETS, "&watch=true&timeoutSeconds=1"),
    fields("of-all-namespaces", "spec.nothing=x", f"{GROUP}/fleets"),
    fields("of-namespaces", "metadata.labels=x", "/api/v1/namespaces"),
    fields("of-events", "involvedObject=x", "/api/v1/namespaces/default/events"),
    fields("nul-of-events", "involvedObject.name=\0", "/api/v1/namespaces/default/events"),
    fields("of-leases", "spec.holderIdentity=x",
           "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
    fields("of-rollouts", "status.batches=1", collection("Rollout")),
]  # fmt: skip

MANY = [
    raw("too-many", LABELS, ",".join("a" * 3500)),
    raw("too-many-with-values", LABELS, ",".join(["a=b"] * 1800)),
    raw("too-many-not", LABELS, ",".join(["!a"] * 2500)),
    raw("too-many-fields", FIELDS, ",".join(["metadata.name"] * 550)),
    raw("too-deep", LABELS, "(" * 3500 + ")" * 3500),
    raw("too-deep-fields", FIELDS, "(" * 3500 + ")" * 3500),
    too_long("labels", LABELS, "a=b," * 2500),
    too_long("fields", FIELDS, "metadata.name%21=a," * 500),
]

ROWS = [
    *OF_LABELS,
    *OF_FIELDS,
    *MANY,
    raw("not-utf-8", LABELS, "a=%ff"),
    raw("surrogate", LABELS, "a=%ed%a0%80"),
    raw("bad-escape", LABELS, "a=%zz"),
    raw("plus-for-a-blank", LABELS, "a+b"),
    raw("field-not-utf-8", FIELDS, "metadata.name%ff=x"),
    deleted("labels-cut", LABELS, "a in (b"),
    deleted("labels-comma", LABELS, ","),
    deleted("fields-unknown", FIELDS, "spec.selector=x"),
    deleted("fields-comma", FIELDS, ","),
    deleted("fields-equals", FIELDS, "="),
    deleted("fields-nul", FIELDS, "metadata.name!=\0"),
]
