"""The agent is started: its configuration is read, or the last one that worked, and it runs.

Apart from the command line, which needs a megabyte of modules that an agent at rest should not
carry.
"""

from __future__ import annotations

import os
import sys

from agent import config, errors, remembering
from agent.linux import LinuxWorld

ROOT_VARIABLE = "FLIGHTCTL_TEST_ROOT_DIR"


def root() -> str:
    """A directory in front of every path, where nothing else is said."""
    return os.environ.get(ROOT_VARIABLE) or "/"


def run(config_file: str, root: str) -> int:
    """The exit status of the agent."""
    # The core is imported when there is work for it: `version` should not wait for it.
    from agent import process

    try:
        settings = _settings_or_remembered(config_file, root)
        process.set_up_logging(settings)
        where = LinuxWorld(root)
        return process.Process(where, settings, lambda: read_settings(config_file, root)).run()
    except (config.ConfigError, errors.Fatal, OSError) as error:
        print(f"homeport-agent: {error}", file=sys.stderr)
        return 1


def read_settings(config_file: str, root: str) -> config.Settings:
    """The file may be named as it is for the device, or as it is from outside its root."""
    where = LinuxWorld(root)
    path = os.path.abspath(config_file)  # noqa: PTH100 - texts of the device, not of this host
    top = str(where.path("/"))
    if top != "/" and path.startswith(f"{top}/"):
        path = path[len(top) :]
    if top != "/" and where.stat(path) is None:
        # A configuration that lies elsewhere, with everything inline.
        return config.load(LinuxWorld("/"), path)
    return config.load(where, path)


def _settings_or_remembered(config_file: str, root: str) -> config.Settings:
    """An agent that does not start cannot be helped from afar."""
    try:
        return read_settings(config_file, root)
    except (config.ConfigError, OSError) as error:
        kept = remembering.instead(LinuxWorld(root), config_file, config.DATA_DIR, error)
        if kept is None:
            raise
        return kept
