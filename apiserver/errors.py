"""Everything that an API call can be refused with.

    StatusError                      one base to catch; code, reason, message, details
    ├── BadRequest            400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── MethodNotAllowed      405
    ├── NotAcceptable         406
    ├── AlreadyExists         409
    ├── Conflict              409
    ├── Expired               410
    ├── TooLarge              413   RequestEntityTooLarge
    ├── UnsupportedMediaType  415
    ├── Unprocessable         422   Invalid, with causes by field
    ├── TooManyRequests       429   with Retry-After
    ├── InternalError         500
    ├── ServiceUnavailable    503   with Retry-After
    ├── Timeout               504
    └── InsufficientStorage   507

Each face renders them in one place. Reasons are those of apimachinery's `metav1.StatusReason`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from resources.errors import FieldError, Invalid
from resources.kind import Kind


class StatusError(Exception):
    """A refusal with an HTTP code and Kubernetes' reason for it."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        kind: Kind | None = None,
        name: str = "",
        uid: str = "",
        causes: Iterable[FieldError] = (),
        retry_after_s: int = 0,
        continue_token: str = "",
    ) -> None:
        # Some repeat a header, which may hold bytes that are no text and can't be sent back.
        message = message.encode(errors="replace").decode()
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.name = name
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s
        self.continue_token = continue_token

    def document(self) -> dict[str, Any]:
        """The `v1.Status` of the Kubernetes face."""
        details: dict[str, Any] = {}
        if self.kind is not None:
            details |= {"group": self.kind.group, "kind": self.kind.plural}
        if self.name:
            details["name"] = self.name
        if self.uid:
            details["uid"] = self.uid
        if self.causes:
            details["causes"] = [
                {"reason": c.reason, "message": c.detail, "field": c.path} for c in self.causes
            ]
        if self.retry_after_s:
            details["retryAfterSeconds"] = self.retry_after_s
        metadata = {"continue": self.continue_token} if self.continue_token else {}
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details:
            status["details"] = details
        return status


class BadRequest(StatusError):
    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    code, reason = 401, "Unauthorized"


class Forbidden(StatusError):
    code, reason = 403, "Forbidden"


class NotFound(StatusError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(StatusError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(StatusError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(StatusError):
    code, reason = 409, "AlreadyExists"


class Conflict(StatusError):
    code, reason = 409, "Conflict"


class Expired(StatusError):
    code, reason = 410, "Expired"


class TooLarge(StatusError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    code, reason = 415, "UnsupportedMediaType"


class Unprocessable(StatusError):
    code, reason = 422, "Invalid"


class TooManyRequests(StatusError):
    code, reason = 429, "TooManyRequests"


class InternalError(StatusError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(StatusError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(StatusError):
    code, reason = 504, "Timeout"


class InsufficientStorage(StatusError):
    """Without Retry-After: somebody has to make room first, and should read so at once."""

    code, reason = 507, "InsufficientStorage"


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f'{kind.resource} "{name}" not found', kind=kind, name=name)


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    return AlreadyExists(f'{kind.resource} "{name}" already exists', kind=kind, name=name)


def conflict(kind: Kind, name: str, why: str) -> Conflict:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Conflict(message, kind=kind, name=name)


def unprocessable(kind: Kind, name: str, problem: Invalid) -> Unprocessable:
    """What a document's complaints look like to a client: 422 with a cause for each field."""
    text = "; ".join(str(error) for error in problem.errors)
    shown = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = f'{shown} "{name}" is invalid: {text}'
    return Unprocessable(message, kind=kind, name=name, causes=problem.errors)
