"""A device below a directory and a service beside it, for tests of the agent's outside."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent import config, configfiles, identity, keys
from tests.fakes import service as services
from tests.fakes.clocked_world import ClockedWorld

Json = dict[str, Any]


class Rig:
    """`world` is the device, `service` the other side; keys are made in this process."""

    def __init__(self, root: Path, service: services.Service) -> None:
        self.world = ClockedWorld(root)
        self.service = service
        certificate, key = service.authority.pair(services.ENROLLMENT_CN)
        self.document: Json = {
            "enrollment-service": {
                "service": {
                    "server": service.url,
                    "certificate-authority-data": base64.b64encode(service.authority.pem).decode(),
                },
                "authentication": {
                    "client-certificate-data": base64.b64encode(certificate).decode(),
                    "client-key-data": base64.b64encode(key).decode(),
                },
            }
        }

    def settings(self, **changes: Any) -> config.Settings:
        document = {**self.document, **changes}
        self.world.put(config.CONFIG_FILE, yaml.safe_dump(document))
        return configfiles.load(self.world)

    def identity(self, settings: config.Settings) -> identity.Identity:
        who = identity.Identity(self.world, settings, keys.answer)
        who.open()
        return who

    def admitted(self, settings: config.Settings, **signing: Any) -> identity.Identity:
        """An identity whose certificate was granted by hand, and a device in the service."""
        who = self.identity(settings)
        pem = self.service.authority.sign(who.request().encode(), f"device:{who.name}", **signing)
        who.install(pem.decode())
        self.service.render(who.name, 1)
        return who


@contextlib.contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    root = folder / "device"
    root.mkdir()
    with services.running(folder) as service:
        yield Rig(root, service)
