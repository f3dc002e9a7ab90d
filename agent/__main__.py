"""`homeport-agent`, installed as `/usr/bin/flightctl-agent` too.

Without a word it is the agent, as systemd starts it; with some, see `commands`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words:
        from agent import commands

        return commands.run(words)
    from agent import config, starting

    return starting.run(config.CONFIG_FILE, starting.root())


if __name__ == "__main__":
    sys.exit(main())
