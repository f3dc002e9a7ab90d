"""What is wrong with a document: which field, why, in words that help.

An `Invalid` carries every complaint, not the first one, so that a person mends a manifest once.
The reasons are those of Kubernetes' field errors (apimachinery `field.ErrorType`), since clients
show and branch on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
DUPLICATE = "FieldValueDuplicate"
NOT_SUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"
NOT_FOUND = "FieldValueNotFound"
TOO_LONG = "FieldValueTooLong"
TOO_MANY = "FieldValueTooMany"
TYPE_INVALID = "FieldValueTypeInvalid"
UNKNOWN = "FieldUnknown"

_WORDS = {
    REQUIRED: "Required value",
    INVALID: "Invalid value",
    DUPLICATE: "Duplicate value",
    NOT_SUPPORTED: "Unsupported value",
    FORBIDDEN: "Forbidden",
    NOT_FOUND: "Not found",
    TOO_LONG: "Too long",
    TOO_MANY: "Too many",
    TYPE_INVALID: "Invalid value",
    UNKNOWN: "unknown field",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One complaint: `path` as `spec.config[0].inline[1].path`, a reason above, a sentence."""

    path: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {_WORDS[self.reason]}: {self.detail}"


class Invalid(ValueError):
    """A document breaks rules; `errors` says all of them."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        assert self.errors, "an Invalid without a complaint"
        super().__init__("; ".join(str(error) for error in self.errors))


def invalid(path: str, detail: str, reason: str = INVALID) -> Invalid:
    """One complaint, ready to raise."""
    return Invalid([FieldError(path, reason, detail)])
