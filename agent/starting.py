"""The agent is started: its configuration is read, or the last one that worked, and it runs.

Apart from the command line, which needs a megabyte of modules that an agent at rest should not
carry.
"""

from __future__ import annotations

import os
import sys

from agent import child, config, errors, remembering
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
        return process.Process(where, settings, lambda: settings_of(config_file, root)).run()
    except (config.ConfigError, errors.Fatal, OSError) as error:
        print(f"homeport-agent: {error}", file=sys.stderr)
        return 1


def settings_of(config_file: str, root: str) -> config.Settings:
    """Read in a process of its own, so that this one never holds a YAML parser.

    Raises ConfigError, for whatever reason: what is remembered helps against all of them.
    """
    question = {"file": config_file, "root": root}
    try:
        found = child.ask(question, "agent.configfiles", needs="python3-yaml")
    except errors.Fatal as error:
        raise config.ConfigError(config_file, error.detail) from error
    if "why" in found:
        raise config.ConfigError(found["key"], found["why"])
    return config.built(found["document"], found["file"], warnings=tuple(found["warnings"]))


def _settings_or_remembered(config_file: str, root: str) -> config.Settings:
    """An agent that does not start cannot be helped from afar."""
    try:
        return settings_of(config_file, root)
    except config.ConfigError as error:
        kept = remembering.instead(LinuxWorld(root), config_file, config.DATA_DIR, error)
        if kept is None:
            raise
        return kept
