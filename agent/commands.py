"""The command line of the agent.

Exit statuses: 0 asked to stop or done, 1 anything else; the last line on stderr says why. `health`,
which greenboot calls, has 2 for wrong usage; `doctor` ends with 1 where it has found an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from agent import (
    collectors,
    config,
    durations,
    health,
    sources,
    starting,
    version,
)
from agent.linux import LinuxWorld
from resources import timestamps


class _Parser(argparse.ArgumentParser):
    """Exit status 1 for wrong usage and not argparse's 2, but for `health`: so the reference does
    it."""

    command = ""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        is_health = self.command == "health" or self.prog.endswith(" health")
        self.exit(health.WRONG_USAGE if is_health else 1, f"{self.prog}: {message}\n")


def _duration(text: str) -> float:
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than nothing")
    return seconds


def run(argv: Sequence[str]) -> int:
    parser = commands()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        parser.command = arguments.command or ""
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    match arguments.command:
        case "version":
            print(version.VERSION)
            print(version.COMMIT)
            return 0
        case "system-info":
            return _system_info(arguments)
        case "health":
            return _health(arguments)
        case "status":
            return _status(arguments)
        case "doctor":
            return _doctor(arguments)
        case "helm-render":
            from agent import helmrender

            return helmrender.run(arguments.app)
        case _:
            return starting.run(arguments.config, arguments.root)


def commands() -> _Parser:
    parser = _Parser(
        prog="homeport-agent", description="Makes this device what its specification says."
    )
    parser.add_argument(
        "--config", default=config.CONFIG_FILE, help="the configuration (default: %(default)s)"
    )
    parser.add_argument(
        "--root",
        default=starting.root(),
        help=f"a directory in front of every path (default: {starting.ROOT_VARIABLE}, else /)",
    )
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND")
    verbs.add_parser("version", help="version and commit, a line each")
    info = verbs.add_parser("system-info", help="what this device is, as one line of JSON")
    info.add_argument("--hardware-map", help="names of graphics cards; accepted and not used yet")
    render = verbs.add_parser(
        "helm-render", help="labels manifests on their way through; called by helm"
    )
    render.add_argument("--app", required=True, help="the application's identifier")
    check = verbs.add_parser("health", help="whether the agent is up and stays up; for greenboot")
    _add_health_flags(check)
    for name, words in (
        ("status", "what runs here, what is wanted, what was refused and why; needs no network"),
        ("doctor", "what keeps this device from being managed, or soon will, and what to do"),
    ):
        verbs.add_parser(name, help=words).add_argument(
            "-o",
            "--output",
            choices=("text", "json"),
            default="text",
            help="(default: %(default)s)",
        )
    return parser


def _add_health_flags(check: argparse.ArgumentParser) -> None:
    usual = health.Patience()
    for flag, seconds, words in (
        ("--timeout", usual.timeout_s, "how long it may take to come up"),
        ("--stability-window", usual.stability_s, "how long it must then stay up"),
        ("--poll-interval", usual.poll_s, "between two looks"),
    ):
        text = f"{seconds:g}s"
        check.add_argument(
            flag,
            type=_duration,
            default=text,
            metavar="DURATION",
            help=f"{words} (default: {text})",
        )
    check.add_argument("--verbose", action="store_true", help="say also why it is healthy")


def _system_info(arguments: argparse.Namespace) -> int:
    from agent import inventory

    where = LinuxWorld(arguments.root)
    machine = sources.Machine(where)
    names = where.listdir(collectors.CUSTOM_DIR)
    custom = collectors.run_all(where, names, real_path=lambda p: str(where.path(p)))
    now = timestamps.of(where.now())
    print(json.dumps(inventory.report(machine, custom, now=now), separators=(",", ":")))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from agent import standing

    where, settings, trouble = LinuxWorld(arguments.root), None, ""
    try:
        try:
            settings = _settings(arguments)
        except config.ConfigError as error:
            trouble = str(error)
        found = standing.gather(where, settings, trouble)
    except OSError as error:
        return _cannot(error)
    if arguments.output == "json":
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(standing.lines(found, where.now())))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from agent import doctor

    where = LinuxWorld(arguments.root)
    found = doctor.examine(
        where, lambda: _settings(arguments), real_path=lambda path: str(where.path(path))
    )
    told = doctor.report(found)
    if arguments.output == "json":
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(doctor.lines(found)))
    return 1 if told["errors"] else 0


def _cannot(error: OSError) -> int:
    is_forbidden = isinstance(error, PermissionError)
    hint = "; only root may look at it: try sudo" if is_forbidden else ""
    print(f"homeport-agent: {error}{hint}", file=sys.stderr)
    return 1


def _health(arguments: argparse.Namespace) -> int:
    patience = health.Patience(
        arguments.timeout, arguments.stability_window, max(arguments.poll_interval, 0.1)
    )
    said: list[str] = []
    status = health.check(LinuxWorld(arguments.root), patience, said.append)
    if status or arguments.verbose:
        print("\n".join(said), file=sys.stderr if status else sys.stdout)
    return status


def _settings(arguments: argparse.Namespace) -> config.Settings:
    from agent import configfiles

    return configfiles.read(arguments.config, arguments.root)
