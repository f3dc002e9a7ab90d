"""What every kind shares: metadata, conditions, label selectors, and the shape of a model.

Models describe and validate documents; documents themselves stay plain JSON. A model forbids
unknown fields, takes no value of another JSON type for the one it wants, and is frozen. What
depends on more than one field, or deserves a better sentence than a pattern gives, is a rule:
a function over the document that yields complaints, and that must survive any JSON, since rules
run beside the model and not after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from resources import formats
from resources.errors import DUPLICATE, INVALID, REQUIRED, TOO_LONG, FieldError, Invalid
from resources.kind import Json

# Each is a row that selectors are answered from.
MAX_LABELS = 256
MAX_ANNOTATIONS_BYTES = 256 * 1024
MAX_GENERATE_NAME = 58

Timestamp = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
        r"([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        json_schema_extra={"format": "date-time"},
    ),
]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
Count = Annotated[int, Field(ge=0, le=2**63 - 1, json_schema_extra={"format": "int64"})]
Percentage = Annotated[str, Field(pattern=formats.PERCENTAGE)]
Duration = Annotated[str, Field(pattern=formats.DURATION)]


def _int_or_string(value: object) -> object:
    # Asked before the union, which would complain once for each of its types.
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("int_or_string", "must be a number or a text")
    return value


IntOrString = Annotated[int | str, BeforeValidator(_int_or_string)]

ATOMIC: Json = {"x-kubernetes-list-type": "atomic"}
SET: Json = {"x-kubernetes-list-type": "set"}
# The schema generator turns integers and strings of such a field into Kubernetes' IntOrString.
INT_OR_STRING: Json = {"x-kubernetes-int-or-string": True}
# Objects whose inside belongs to someone else: values of a chart, reports of newer agents.
OPEN: Json = {"x-kubernetes-preserve-unknown-fields": True}


def keyed(*keys: str) -> Json:
    """The mark of a list whose items are told apart by required fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class Model(BaseModel):
    """One object of a document, closed and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class OwnerReference(Model):
    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    api_version: str = Field(description="Group and version of the owning object.")
    kind: str = Field(description="Kind of the owning object.")
    name: str = Field(description="Name of the owning object, in the same namespace.")
    uid: str = Field(
        description="UID of the owner; an object of the same name made later is not it."
    )
    controller: bool | None = Field(
        None, description="True on the one owner that reconciles this object."
    )
    block_owner_deletion: bool | None = Field(
        None, description="True if a foreground deletion of the owner waits for this object."
    )


class ObjectMeta(Model):
    """Names, labels and bookkeeping of an object."""

    name: str | None = Field(
        None,
        max_length=formats.MAX_NAME,
        description="Name, unique in the namespace for this kind. It cannot be changed.",
    )
    generate_name: str | None = Field(
        None, description="A beginning to which the service adds random letters if name is absent."
    )
    namespace: str | None = Field(
        None, description="Namespace, which is also the organization that owns the object."
    )
    uid: str | None = Field(
        None, description="Identity of this very object, given by the service at creation."
    )
    resource_version: str | None = Field(
        None,
        description="Version of the stored object. Sent with a change, it must be the current one.",
    )
    generation: Int64 | None = Field(
        None, description="Counts the changes of spec. Set by the service."
    )
    creation_timestamp: Timestamp | None = Field(
        None, description="When the object was created. Set by the service."
    )
    deletion_timestamp: Timestamp | None = Field(
        None, description="When deletion was asked for; set while finalizers hold the object."
    )
    deletion_grace_period_seconds: Int64 | None = Field(
        None, description="Seconds granted to an orderly deletion. Set by the service."
    )
    labels: dict[str, str] | None = Field(
        None,
        description="Keys and values by which fleets, selectors and people find the object.",
    )
    annotations: dict[str, str] | None = Field(
        None, description="Notes of tools and people; nothing is selected by them."
    )
    owner_references: list[OwnerReference] | None = Field(
        None,
        description="Objects that this one belongs to; it is removed when all of them are gone.",
        json_schema_extra=keyed("uid"),
    )
    finalizers: list[str] | None = Field(
        None,
        description="Who must clean up before the object may disappear.",
        json_schema_extra=SET,
    )
    managed_fields: list[dict[str, Any]] | None = Field(
        None,
        description="Which client owns which field; kept for server-side apply.",
        json_schema_extra=ATOMIC,
    )
    self_link: str | None = Field(None, description="Obsolete; accepted and ignored.")
    owner: str | None = Field(
        None, description="Owner in the form Kind/name, such as Fleet/web. Set by the service."
    )


class TemplateMeta(Model):
    """The metadata that a fleet's template may carry."""

    name: str | None = Field(
        None, max_length=formats.MAX_NAME, description="Unused: devices keep their names."
    )
    labels: dict[str, str] | None = Field(
        None, description="Labels of the template, for the reader; devices keep their own."
    )
    annotations: dict[str, str] | None = Field(None, description="Notes on the template.")
    owner: str | None = Field(None, description="Owner in the form Kind/name. Set by the service.")
    generation: Int64 | None = Field(
        None, description="Counts the changes of the template. Set by the service."
    )
    resource_version: str | None = Field(None, description="Accepted and ignored.")
    creation_timestamp: Timestamp | None = Field(None, description="Accepted and ignored.")
    deletion_timestamp: Timestamp | None = Field(None, description="Accepted and ignored.")


class Condition(Model):
    type: str = Field(
        min_length=1, max_length=316, description="What the condition is about, such as Valid."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="One CamelCase word that programs can test.")
    message: str = Field(max_length=32768, description="The same for people, with details.")
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: Int64 | None = Field(
        None, description="The generation of spec that this was concluded from."
    )


def conditions(description: str) -> Any:
    """The field of a status that holds conditions."""
    return Field(None, description=description, json_schema_extra=keyed("type"))


class MatchExpression(Model):
    key: str = Field(description="Label key that the rule looks at.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In and NotIn compare with values; Exists and DoesNotExist look for the key."
    )
    values: list[str] | None = Field(
        None,
        description="Values for In and NotIn, at least one; none for the other operators.",
        json_schema_extra=ATOMIC,
    )


class LabelSelector(Model):
    match_labels: dict[str, str] | None = Field(
        None, description="Labels that an object must have, all of them with these values."
    )
    match_expressions: list[MatchExpression] | None = Field(
        None,
        min_length=1,
        description="Rules that labels must satisfy, all of them.",
        json_schema_extra=ATOMIC,
    )


class Document(Model):
    """The outer shape of every kind. `api_version` and `kind` are compared with the Kind by
    `resources.validation`, which knows which spellings the caller's face allows."""

    api_version: str = Field(
        description="Group and version of the schema, as in the first line of a manifest."
    )
    kind: str = Field(description="Name of the kind.")
    metadata: ObjectMeta = Field(description="Names, labels and bookkeeping of the object.")


Complaints = Iterator[FieldError]


def mapping(document: Any, *keys: str) -> Json:
    """The object under `keys`, or an empty one: rules must survive any JSON."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def items(document: Any, key: str) -> Iterator[tuple[int, Json]]:
    """The objects of the list under `key` with their indexes, skipping what is no object."""
    found = document.get(key) if isinstance(document, dict) else None
    if isinstance(found, list):
        for index, item in enumerate(found):
            if isinstance(item, dict):
                yield index, item


def text(document: Json, key: str) -> str | None:
    """The string under `key`, or None if there is none."""
    found = document.get(key)
    return found if isinstance(found, str) else None


def complain(path: str, problem: str | None, reason: str = INVALID) -> Complaints:
    """Yields the problem of a format check, if it found one."""
    if problem is not None:
        yield FieldError(path, reason, problem)


def checked(document: Json, key: str, path: str, check: Callable[[str], str | None]) -> Complaints:
    """Runs a format check on the string under `key`, where there is one."""
    found = text(document, key)
    if found is not None:
        yield from complain(f"{path}.{key}", check(found))


class Unique:
    """Yields a complaint for every value seen before."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: dict[Any, str] = {}

    def check(self, path: str, value: Any) -> Complaints:
        first = self._seen.setdefault(value, path)
        if first != path:
            where = first.rpartition(".")[0] or first
            detail = f"{formats.shown(value)} is already the {self._what} of {where}"
            yield FieldError(path, DUPLICATE, detail)


def raise_all(complaints: Complaints) -> None:
    """Ends a kind's `validate`."""
    found = list(complaints)
    if found:
        raise Invalid(found)


def check_labels(labels: Any, path: str) -> Complaints:
    if not isinstance(labels, Mapping):
        return
    if len(labels) > MAX_LABELS:
        yield FieldError(path, TOO_LONG, f"no more than {MAX_LABELS}, these are {len(labels)}")
    for key, value in labels.items():
        yield from complain(f"{path}[{key}]", formats.label_key(key))
        if isinstance(value, str):
            yield from complain(f"{path}[{key}]", formats.label_value(value))


def check_annotations(annotations: Any, path: str) -> Complaints:
    if not isinstance(annotations, Mapping):
        return
    size = 0
    for key, value in annotations.items():
        # Kubernetes compares annotation keys in lower case.
        yield from complain(f"{path}[{key}]", formats.label_key(key.lower()))
        if isinstance(value, str):
            size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS_BYTES:
        detail = f"no more than {MAX_ANNOTATIONS_BYTES} bytes altogether, these have {size}"
        yield FieldError(path, TOO_LONG, detail)


def check_metadata(metadata: Json) -> Complaints:
    """The rules that hold for the metadata of every kind."""
    name = text(metadata, "name")
    generate = text(metadata, "generateName")
    if name:
        yield from complain("metadata.name", formats.subdomain(name))
    elif not generate:
        yield FieldError("metadata.name", REQUIRED, "name the object")
    elif len(generate) > MAX_GENERATE_NAME or formats.subdomain(generate + "x") is not None:
        detail = (
            f"{formats.shown(generate)} cannot begin a name: use at most {MAX_GENERATE_NAME} "
            "lower-case letters, digits, '-' and '.'"
        )
        yield FieldError("metadata.generateName", INVALID, detail)
    yield from check_labels(metadata.get("labels"), "metadata.labels")
    yield from check_annotations(metadata.get("annotations"), "metadata.annotations")
    yield from checked(metadata, "owner", "metadata", _owner)
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        if isinstance(finalizer, str):
            yield from complain(f"metadata.finalizers[{index}]", formats.label_key(finalizer))
    controllers = [i for i, ref in items(metadata, "ownerReferences") if ref.get("controller")]
    for index in controllers[1:]:
        path = f"metadata.ownerReferences[{index}].controller"
        yield FieldError(path, INVALID, "only one owner can be the controller")
    for index, reference in items(metadata, "ownerReferences"):
        for key in ("apiVersion", "kind", "name", "uid"):
            if reference.get(key) == "":
                path = f"metadata.ownerReferences[{index}].{key}"
                yield FieldError(path, REQUIRED, "must not be empty")


def _owner(owner: str) -> str | None:
    return formats.owner(owner) if owner else None


def check_template_metadata(metadata: Json, path: str) -> Complaints:
    yield from checked(metadata, "name", path, formats.subdomain)
    yield from check_labels(metadata.get("labels"), f"{path}.labels")
    yield from check_annotations(metadata.get("annotations"), f"{path}.annotations")
    yield from checked(metadata, "owner", path, _owner)


def check_selector(selector: Any, path: str, *, must_select: bool = True) -> Complaints:
    """A label selector; `must_select` refuses one without any rule."""
    if not isinstance(selector, dict):
        return
    if must_select and selector.get("matchLabels") is None and not selector.get("matchExpressions"):
        detail = "say what to select: give matchLabels or matchExpressions"
        yield FieldError(path, REQUIRED, detail)
    yield from check_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    rules = selector.get("matchExpressions")
    if isinstance(rules, list) and len(rules) > MAX_LABELS:
        detail = f"no more than {MAX_LABELS}, these are {len(rules)}"
        yield FieldError(f"{path}.matchExpressions", TOO_LONG, detail)
    for index, rule in items(selector, "matchExpressions"):
        here = f"{path}.matchExpressions[{index}]"
        yield from checked(rule, "key", here, formats.label_key)
        values = rule.get("values")
        if rule.get("operator") in ("In", "NotIn"):
            if not values:
                detail = f"{rule['operator']} needs at least one value"
                yield FieldError(f"{here}.values", REQUIRED, detail)
            for place, value in enumerate(values if isinstance(values, list) else ()):
                if isinstance(value, str):
                    yield from complain(f"{here}.values[{place}]", formats.label_value(value))
        elif values and rule.get("operator") in ("Exists", "DoesNotExist"):
            detail = f"{rule['operator']} takes no values; remove them"
            yield FieldError(f"{here}.values", INVALID, detail)
