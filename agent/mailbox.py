"""Where the agent's threads leave each other what is true now: specifications in, status out.

Levels, not queues: an offer replaces the one before it, a section replaces its former value. So
nothing fills up, and a reader that was slow reads the newest. Nobody waits for anybody here but by
`wait_for_...`, always with a limit.

Documents are shared, not copied: whoever puts one in does not change it afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]


class Mailbox:
    """`on_offer` wakes the loop; it is called from the thread that offers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offer: Json | None = None
        self._known = ""
        self._sections: Json = {}
        self._has_news = False
        self._pushed: object = None
        self._levels: Mapping[str, str] = {}
        self._awaited = 0
        self._has_wish = False
        self.on_offer: Callable[[], None] = lambda: None

    def offer_spec(self, device: Json) -> None:
        """From the poller: what the service says that this device should be."""
        with self._changed:
            self._offer = device
        self.on_offer()

    def take_spec(self) -> Json | None:
        """For the loop: the newest offer since the last call."""
        with self._changed:
            offer, self._offer = self._offer, None
            return offer

    def known_version(self) -> str:
        """The version not to be told again: the newest that was taken or refused; "" = none."""
        with self._changed:
            return self._known

    def set_known_version(self, version: str) -> None:
        with self._changed:
            self._known = version

    def set_section(self, name: str, value: Any) -> None:
        """A member of the device's status. An equal value is no news; None takes it away."""
        with self._changed:
            if self._sections.get(name) == value:
                return
            if value is None:
                del self._sections[name]
            else:
                self._sections[name] = value
            self._has_news = True
            self._changed.notify_all()

    def status(self) -> Json:
        """All sections that the loop has set."""
        with self._changed:
            return dict(self._sections)

    def wait_for_status_change(self, timeout_s: float) -> bool:
        """For the reporter, the only one to call it: True once for all changes since the last.
        Somebody who begins to wait for a push ends it early."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_news or self._has_wish, timeout_s)
            had_news, self._has_news, self._has_wish = self._has_news, False, False
            return had_news

    def set_levels(self, levels: Mapping[str, str]) -> None:
        """From the reporter: how short the device is of CPU, memory and disk."""
        with self._changed:
            self._levels = levels

    def levels(self) -> Mapping[str, str]:
        """For the loop: what was measured last; empty before."""
        with self._changed:
            return self._levels

    def pushed(self, status: Mapping[str, Any]) -> None:
        """From the reporter: the service has taken this status."""
        with self._changed:
            self._pushed = status.get("conditions")
            self._changed.notify_all()

    def wait_for_push(self, timeout_s: float) -> bool:
        """Whether the service has taken the conditions as they are now; waits for it."""
        with self._changed:
            self._awaited += 1
            self._has_wish = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(self._is_pushed, timeout_s)
            finally:
                self._awaited -= 1

    def is_push_awaited(self) -> bool:
        """Whether somebody waits for what the service has not taken yet."""
        with self._changed:
            return self._awaited > 0 and not self._is_pushed()

    def _is_pushed(self) -> bool:
        return bool(self._pushed == self._sections.get("conditions"))
