"""What an outside source gives, and how it refuses: the words that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resources import manifest


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it will be on the device."""

    path: str
    blob: bytes
    mode: int = manifest.DEFAULT_MODE
    user: str = manifest.DEFAULT_USER
    group: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source gave, and where it stood: at a commit, a digest, a resourceVersion. What takes
    credentials to read `is_secret`, and is kept as the credentials are."""

    contents: Sequence[Content]
    revision: str
    etag: str = ""
    is_secret: bool = False


class Unusable(Exception):
    """A source cannot be frozen. `field` is the provider's that is to blame, such as `gitRef.path`;
    the cause is a sentence for people and holds no credential. What `is_passing` may be right again
    without anybody's doing."""

    def __init__(self, field: str, cause: str, *, is_passing: bool = False) -> None:
        super().__init__(f"{field}: {cause}")
        self.field = field
        self.cause = cause
        self.is_passing = is_passing

    def again(self) -> Unusable:
        """The same without a traceback, to be raised once more."""
        return Unusable(self.field, self.cause, is_passing=self.is_passing)


def check_size(field: str, files: int, size: int) -> None:
    """Raises Unusable before more is held in memory than can be delivered."""
    if files > manifest.FILES_MAX:
        raise Unusable(field, f"{files} files; {manifest.FILES_MAX} at most")
    if size > manifest.SPEC_BYTES_MAX:
        raise Unusable(field, f"{size} bytes; {manifest.SPEC_BYTES_MAX} at most")
