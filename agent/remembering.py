"""The last configuration with which the service was reached, kept for when the present one fails.

Kept: the merged document, the address that answered, and the authority as it was then, in one file
for root alone. It is used in two ways. Where the configuration cannot be read at all, what is kept
is in force instead, since an agent that does not start cannot be helped from afar. Where it can be
read and leads nowhere, the address that is kept is the last way that `routes` tries; all else is as
the new configuration says. Both are said in the log and in the device's summary.

A device that has never been reached has nothing here, and fails as before. To move a device to
another service, remove the file (or the whole data directory) with its configuration.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from agent import config, world
from resources.records import replace

log = logging.getLogger("agent.remembering")

NAME = "manageable.json"
BYTES_MAX = config.MAX_CONFIG_BYTES * 2
AUTHORITY_BYTES_MAX = 1 << 18


class Memory:
    """Written by the contact thread, read by any."""

    def __init__(self, where: world.World, settings: config.Settings) -> None:
        self._world = where
        self._settings = settings

    def keep(self, service: config.Service) -> None:
        """The service has answered at this address, under the settings that are in force."""
        try:
            authority = service.authority.load(self._world)
            if len(authority) > AUTHORITY_BYTES_MAX:
                return
            document = {
                "document": dict(self._settings.document),
                "server": service.server,
                "authority": authority.decode("ascii"),
            }
            raw = json.dumps(document).encode()
            path = _path(self._settings.data_dir)
            if len(raw) > BYTES_MAX or self._world.read(path) == raw:
                return
            self._world.mkdir(path.rsplit("/", 1)[0], mode=0o700)
            self._world.write(path, raw, mode=0o600, uid=0, gid=0)
        except (OSError, UnicodeDecodeError) as error:
            log.warning("configuration not remembered: %s", error)

    def service(self) -> config.Service | None:
        """The address that is kept, unless the present configuration leads there too."""
        kept = _read(self._world, self._settings.data_dir)
        if kept is None:
            return None
        try:
            then = _settings(kept, self._settings.config_file, self._settings.data_dir).management
        except config.ConfigError:
            return None
        service = replace(then, server=kept["server"], fallbacks=())
        return None if self._is_configured(service) else service

    def _is_configured(self, service: config.Service) -> bool:
        for one in self._settings.management.each():
            try:
                authority = one.authority.load(self._world)
            except OSError:
                continue
            as_read = replace(one, authority=config.Pem(data=authority))
            if as_read == service:
                return True
        return False


def instead(
    where: world.World, config_file: str, data_dir: str, trouble: Exception
) -> config.Settings | None:
    """What is kept, in the place of a configuration that cannot be used; None = nothing is."""
    kept = _read(where, data_dir)
    if kept is None:
        return None
    words = f"{trouble}; the last one with which the service was reached is used"
    try:
        return _settings(kept, config_file, data_dir, (f"configuration not used: {words}",))
    except config.ConfigError:
        return None


def _settings(
    kept: dict[str, Any], config_file: str, data_dir: str, warnings: tuple[str, ...] = ()
) -> config.Settings:
    made = config.built(kept["document"], config_file, data_dir=data_dir, warnings=warnings)
    # A file that has been replaced since must not decide whom we trust.
    authority = config.Pem(data=kept["authority"].encode())
    return replace(made, management=replace(made.management, authority=authority))


def _read(where: world.World, data_dir: str) -> dict[str, Any] | None:
    try:
        kept = json.loads((where.read(_path(data_dir)) or b"{}")[: BYTES_MAX + 1])
        is_whole = (
            isinstance(kept["document"], dict)
            and isinstance(kept["server"], str)
            and isinstance(kept["authority"], str)
        )
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return None
    return kept if is_whole else None


def _path(data_dir: str) -> str:
    return f"{data_dir}/homeport/{NAME}"
