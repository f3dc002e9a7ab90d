"""Something that is to be told of an object, in the words of flightctl's events. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resources.kind import Json

# What makes it the same as what was told of the object within the hour, so that it is counted there
# and not told anew: that it says the same; that it is of the same reason, whatever it says, where
# a device chooses the words; or nothing, for what can happen to an object once only.
Sameness = Literal["words", "reason", "none"]


@dataclass(frozen=True, slots=True)
class News:
    reason: str
    message: str
    details: Json | None = None
    same_by: Sameness = "words"
