"""greenboot: has this boot been called good? Commands to ask systemd, and their answers read.

Where greenboot is not enabled nobody judges a boot, and nothing is waited for. An answer that
cannot be had counts as good, as with the agent that we replace: health checks must not be able to
hold up a device by their own failure.
"""

from __future__ import annotations

from agent import world

UNIT = "greenboot-healthcheck.service"
TARGET = "boot-complete.target"
QUICK_S = 10.0


def is_enabled_argv() -> list[str]:
    return ["systemctl", "is-enabled", UNIT]


def is_active_argv() -> list[str]:
    return ["systemctl", "is-active", TARGET]


def is_boot_complete(where: world.World) -> bool | None:
    """None = nobody judges here."""
    if where.run(is_enabled_argv(), timeout_s=QUICK_S).stdout.strip() != "enabled":
        return None
    answer = where.run(is_active_argv(), timeout_s=QUICK_S)
    return answer.stdout.strip() not in ("inactive", "activating", "failed")
