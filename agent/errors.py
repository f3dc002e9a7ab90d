"""What can go wrong on a device, in three kinds, and the sentence that the service gets to read.

    AgentError
    ├── Retry    the world is not ready; the same again later may help
    │   └── Later    a hook before the update asks for another time
    ├── Reject   this specification cannot be made true here; it is refused
    └── Fatal    this process cannot go on; systemd starts another

Whoever raises chooses the cause: one of the constants below, the innermost that is known. So one
failure always reads the same. The sentences and the frame around them are those that existing
tools match with regular expressions; what we know beyond them follows after a colon.
"""

from __future__ import annotations

from resources.records import dataclass

NOT_FOUND = "NotFound"
PERMISSION_DENIED = "PermissionDenied"
UNAUTHENTICATED = "Unauthenticated"
UNAVAILABLE = "Unavailable"
RESOURCE_EXHAUSTED = "ResourceExhausted"
FAILED_PRECONDITION = "FailedPrecondition"
INTERNAL = "Internal"
INVALID_ARGUMENT = "InvalidArgument"
DEADLINE_EXCEEDED = "DeadlineExceeded"
ABORTED = "Aborted"
UNIMPLEMENTED = "Unimplemented"

TEXTS = {
    NOT_FOUND: "required resource not found",
    PERMISSION_DENIED: "permission denied",
    UNAUTHENTICATED: "authentication failed",
    UNAVAILABLE: "service unavailable (network issue)",
    RESOURCE_EXHAUSTED: "resource limit exceeded (CPU, memory, or disk)",
    FAILED_PRECONDITION: "precondition not met (waiting for dependencies)",
    INTERNAL: "internal error occurred",
    INVALID_ARGUMENT: "invalid configuration or input",
    DEADLINE_EXCEEDED: "request timed out",
    ABORTED: "operation was aborted",
    UNIMPLEMENTED: "feature not supported",
}

PREPARING = "Preparing"
APPLYING = "ApplyingUpdate"
REBOOTING = "Rebooting"

CONFIG = "config"
APPLICATIONS = "applications"
PREFETCH = "prefetch"
OS = "os"
LIFECYCLE = "lifecycle"
HOOKS = "hooks"
DOWNLOAD_POLICY = "download policy"
UPDATE_POLICY = "update policy"

# The service cuts condition messages here; better that we choose what is lost.
MESSAGE_CHARS_MAX = 250
ELEMENT_CHARS_MAX = 64


class AgentError(Exception):
    """`element` is the file or application at fault, `cause` one of the constants above."""

    def __init__(self, cause: str, detail: str, *, component: str, element: str = "") -> None:
        assert cause in TEXTS, cause
        super().__init__(f"{component}: {element or '-'}: {detail}")
        self.cause = cause
        self.detail = detail
        self.component = component
        self.element = element


class Retry(AgentError):
    """Not now. The caller decides when again, but not before `after_s`; nothing was promised
    meanwhile."""

    def __init__(
        self, cause: str, detail: str, *, component: str, element: str = "", after_s: float = 0.0
    ) -> None:
        super().__init__(cause, detail, component=component, element=element)
        self.after_s = after_s


class Later(Retry):
    """A hook asks for another time, before anything was done."""


class Reject(AgentError):
    """Not ever, for this content on this device."""


class Fatal(AgentError):
    """This process is of no more use."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed update as it is kept in the journal and told to the service."""

    phase: str
    component: str
    element: str
    cause: str
    detail: str
    at: str

    def message(self, version: str) -> str:
        """`[time] While P: c failed for e: text: detail (renderedVersion: N)`, 250 characters.

        The version is named, because the service must know which delivery the words are about.
        """
        element = self.element
        if len(element) > ELEMENT_CHARS_MAX:
            element = "..." + element[-ELEMENT_CHARS_MAX:]
        where = f" for {element}" if element else ""
        head = f"[{self.at}] While {self.phase}: {self.component} failed{where}: "
        head += TEXTS[self.cause]
        tail = f" (renderedVersion: {version})"
        detail = one_line(self.detail)
        if not detail:
            return shortened(head, MESSAGE_CHARS_MAX - len(tail)) + tail
        return shortened(f"{head}: {detail}", MESSAGE_CHARS_MAX - len(tail)) + tail


def failure_of(error: AgentError, *, phase: str, at: str) -> Failure:
    """The lasting form of an error that ended an attempt."""
    return Failure(phase, error.component, error.element, error.cause, one_line(error.detail), at)


def one_line(text: str) -> str:
    """`text` as one line of printable characters: output of tools is not ours to trust."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str, limit: int) -> str:
    """`text`, cut with an ellipsis where it is longer than `limit`."""
    return text if len(text) <= limit else text[: max(0, limit - 3)] + "..."
