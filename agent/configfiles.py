"""The files of the configuration: `/etc/flightctl/config.yaml` and its drop-ins, read and merged.

The invariant: no drop-in can keep the agent from starting. Drop-ins arrive with fleet updates, and
an agent that does not start cannot undo one. A drop-in that cannot be read, or that would make
valid settings invalid, is skipped and remembered in `Settings.warnings`. Drop-ins may set the
keys of `_MERGED`; the addresses and certificates of the service are not among them, so that an
update cannot send a device to another service.

YAML's parser takes a twentieth of the memory that the agent may have, for a moment at the start.
So the agent asks this module in a process of its own (`starting`), and is told the merged document.
A document holds what JSON can say, and nothing else; aliases are written out, up to a limit.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from agent import config, yamltexts
from agent.config import ConfigError, Document
from agent.linux import LinuxWorld
from resources.records import replace

MAX_DROP_INS = 100
QUESTION_BYTES_MAX = 1 << 16

_MERGED = (
    "log-level",
    "log-prefix",
    "spec-fetch-error-base-delay",
    "spec-fetch-error-max-delay",
    "status-update-interval",
    "status-update-jitter",
    "enrollment-verify-interval",
    "enrollment-verify-cap",
    "network-profile",
    "contact-interval",
    "pull-timeout",
    "pull-retry-steps",
    "repair-interval",
    "application-start-grace",
    "application-stability",
    "drift-repair",
    "download-rate-limit",
    "service-reach-grace",
    "service-reach-grace-after-boot",
    "system-info",
    "system-info-custom",
    "system-info-timeout",
    "metrics-enabled",
    "profiling-enabled",
)
_MERGED_BY_KEY = ("tpm", "audit", "image-pruning", "default-labels", "label-from-systeminfo")


def load(
    files: config.Files, config_file: str = config.CONFIG_FILE, *, data_dir: str = config.DATA_DIR
) -> config.Settings:
    """The settings. Raises ConfigError, whose text names the file and the key; OSError."""
    raw = files.read(config_file)
    if raw is None:
        raise ConfigError(config_file, "the configuration file does not exist")
    document = _parse(raw, config_file)

    def build(candidate: Document) -> config.Settings:
        return config.built(candidate, config_file, data_dir=data_dir)

    folder = config.folder_of(config_file)
    document, warnings = _with_drop_ins(files, document, folder, build)
    try:
        return replace(build(document), warnings=warnings)
    except ConfigError as error:
        raise ConfigError(f"{config_file}: {error.key}", error.why) from error


def read(config_file: str, root: str) -> config.Settings:
    """The file may be named as it is for the device, or as it is from outside its root."""
    where = LinuxWorld(root)
    path = os.path.abspath(config_file)  # noqa: PTH100 - texts of the device, not of this host
    top = str(where.path("/"))
    if top != "/" and path.startswith(f"{top}/"):
        path = path[len(top) :]
    if top != "/" and where.stat(path) is None:
        # A configuration that lies elsewhere, with everything inline.
        return load(LinuxWorld("/"), path)
    return load(where, path)


def _with_drop_ins(
    files: config.Files,
    document: Document,
    config_dir: str,
    build: Callable[[Document], config.Settings],
) -> tuple[Document, tuple[str, ...]]:
    folder = f"{config_dir}/conf.d"
    warnings: list[str] = []
    valid = _is_valid(document, build)
    names = sorted(one for one in _names(files, folder) if one.endswith((".yaml", ".yml")))
    if len(names) > MAX_DROP_INS:
        beyond = len(names) - MAX_DROP_INS
        warnings.append(f"{beyond} drop-ins skipped: {folder} has more than {MAX_DROP_INS}")
    for name in names[:MAX_DROP_INS]:
        path = f"{folder}/{name}"
        try:
            raw = files.read(path)
            if raw is None:
                continue
            candidate = _merged(document, _parse(raw, path))
            if valid:
                build(candidate)
        except (ConfigError, OSError) as error:
            warnings.append(f"drop-in skipped: {path}: {error}")
            continue
        document = candidate
        valid = valid or _is_valid(document, build)
    return document, tuple(warnings)


def _names(files: config.Files, folder: str) -> Iterable[str]:
    try:
        return list(files.listdir(folder))
    except OSError:
        return []


def _is_valid(document: Document, build: Callable[[Document], config.Settings]) -> bool:
    try:
        build(document)
    except ConfigError:
        return False
    return True


def _parse(raw: bytes, path: str) -> Document:
    if len(raw) > config.MAX_CONFIG_BYTES:
        raise ConfigError(path, f"larger than {config.MAX_CONFIG_BYTES} bytes")
    try:
        document = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(path, f"not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(path, "must be a mapping of settings")
    try:
        plain: Document = yamltexts.plain(document, iter(range(yamltexts.VALUES_MAX)))
    except ValueError as error:
        raise ConfigError(path, str(error)) from error
    except RecursionError as error:
        raise ConfigError(path, "is nested too deeply") from error
    return plain


def _merged(document: Document, drop_in: Document) -> Document:
    result = dict(document)
    for key in _MERGED:
        if drop_in.get(key) is not None:
            result[key] = drop_in[key]
    for key in _MERGED_BY_KEY:
        if isinstance(drop_in.get(key), dict):
            old = result.get(key)
            result[key] = {**(old if isinstance(old, dict) else {}), **drop_in[key]}
        elif drop_in.get(key) is not None:
            raise ConfigError(key, "must be a mapping")
    return result


def main() -> int:
    """A question on stdin, its answer on stdout, as `child.ask` has it."""
    asked = json.loads(sys.stdin.buffer.read(QUESTION_BYTES_MAX))
    json.dump(answer(asked["file"], asked["root"]), sys.stdout)
    return 0


def answer(config_file: str, root: str) -> dict[str, Any]:
    try:
        found = read(config_file, root)
    except ConfigError as error:
        return {"key": error.key, "why": error.why}
    except OSError as error:
        return {"key": config_file, "why": error.strerror or str(error)}
    return {
        "document": found.document,
        "file": found.config_file,
        "warnings": found.warnings,
    }


if __name__ == "__main__":
    sys.exit(main())
