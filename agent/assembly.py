"""The agent put together: what it is made of, and who tells whom.

Apart from `process`, which has threads, signals, a lock and systemd around it: here nobody waits
and nobody forks, so the same agent is lived through on a stage of virtual time, where it is cut off
at every one of its effects. What a life needs of the outside beyond `World` is named in `Outside`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agent import (
    banner,
    bulletin,
    child,
    collectors,
    config,
    contact,
    enrolling,
    errors,
    identity,
    instruments,
    lives,
    monitors,
    osimage,
    polling,
    remembering,
    reporting,
    routes,
    sources,
    system,
    transport,
    version,
    world,
)
from agent.loop import Reconciler
from agent.mailbox import Mailbox
from agent.settings import LoopSettings
from resources.records import dataclass, field

log = logging.getLogger("agent")

# A loop that cannot read its disk must not keep the device from being seen.
HEAD_START_S = 3.0
HEAD_START_STEP_S = 0.05


class Stop(Protocol):
    """As `threading.Event`."""

    def is_set(self) -> bool: ...

    def wait(self, seconds: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """`tell` takes a word for systemd, `show` the banner for the console; `times` replaces what
    the configuration says to the loop; `downloader` carries downloads out."""

    tell: Callable[[str], None]
    show: Callable[[str], None]
    real_path: Callable[[str], str]
    connect: routes.Connect = transport.Client
    ask: identity.Ask | None = None
    machine: sources.Machine | None = None
    disk_usage: Callable[[str], float | None] = monitors.disk_usage_of
    times: LoopSettings | None = None
    downloader: tuple[str, ...] = ()
    nap_s: float = reporting.NAP_S
    mailbox: Mailbox = field(default_factory=Mailbox)


class Agent:
    """Built once; `begin` before anything else is asked of it."""

    def __init__(self, where: world.World, settings: config.Settings, outside: Outside) -> None:
        self._world = where
        self._settings = settings
        self._outside = outside
        self.mailbox = outside.mailbox
        self.lives = lives.Lives(where, f"{settings.data_dir}/homeport")
        self._memory = remembering.Memory(where, settings)
        self.identity = identity.Identity(
            where,
            settings,
            outside.ask,
            connect=outside.connect,
            remembered=self._memory.service,
        )
        self.identity.routes.on_other = self.warn
        self._os_mode = system.mode_of(where)
        self._is_image_mode = self._os_mode != osimage.PACKAGE
        # What is wrong with certificates for others.
        self._further: Callable[[], tuple[str, ...]] = lambda: ()
        machine = outside.machine or sources.Machine(where)
        self._system_info = collectors.SystemInfo(
            where, machine, runtime=self._runtime_fact, real_path=outside.real_path
        )
        self._system_info.configure(settings)
        resources = monitors.Monitors(
            machine, disk_usage=outside.disk_usage, real_path=outside.real_path
        )
        self._facts = reporting.Facts(
            where,
            settings.data_dir,
            self._system_info,
            resources,
            is_image_mode=self._is_image_mode,
        )
        self.warn()
        self._bulletin = bulletin.Bulletin(where, {"agentVersion": version.VERSION})

    def begin(self) -> None:
        """Notes this life, opens the identity and makes the rest. Raises errors.Fatal."""
        self.lives.begin()
        self.warn()
        try:
            self.identity.open()
        except errors.Fatal as error:
            self.lives.end(str(error))
            raise
        self._compose()

    def _compose(self) -> None:
        settings, connect = self._settings, self._outside.connect
        self.probe = contact.Probe(self.identity)
        self.loop = Reconciler(
            self._world,
            self._outside.times or self._times(),
            self.mailbox,
            self.probe,
            self._os_mode,
            self.identity.forget_keys,
        )
        self.report = reporting.Reporting(
            self._world,
            settings,
            self.identity,
            self.mailbox,
            self._facts,
            nap_s=self._outside.nap_s,
        )
        enrolment = enrolling.Enrolling(
            self._world,
            settings,
            self.identity,
            facts=self.report.status,
            known_version=self.mailbox.known_version,
            is_image_mode=self._is_image_mode,
            connect=connect,
        )
        self.contact = contact.Contact(
            self._world,
            settings,
            self.identity,
            enrolment,
            self.mailbox,
            self.mailbox.known_version,
            ask=self._outside.ask or child.ask,
        )
        self._introduce(enrolment)

    def _times(self) -> LoopSettings:
        settings = self._settings
        return LoopSettings(
            data_dir=settings.data_dir,
            pull_timeout_s=settings.pull_timeout_s,
            repair_interval_s=settings.repair_interval_s,
            start_grace_s=settings.start_grace_s,
            stability_s=settings.stability_s,
            reach_s=settings.reach_grace_s,
            boot_reach_s=settings.boot_reach_grace_s,
            kubeconfig=os.environ.get("KUBECONFIG", ""),
            program=str(Path(sys.argv[0]).resolve()),
            download_rate=settings.download_rate,
            downloader=self._outside.downloader,
            is_pruning=settings.image_pruning_enabled,
            repairs_files=settings.drift_repair,
            audited_as=self.identity.name if settings.audit_enabled else "",
        )

    def _introduce(self, enrolment: enrolling.Enrolling) -> None:
        """Who tells whom, and who counts."""
        self._further = self.contact.provisioning.troubles
        self.contact.on_enrolled = self._enrolled
        self.contact.on_conflict = self.report.forget
        self.contact.on_contact = self.report.tell_by
        self.contact.on_connected = self._connected
        self.contact.on_polled = self._polled
        enrolment.on_asked = self._asked
        enrolment.on_waiting = self._bulletin.waiting
        self.report.on_look = self._looked
        self.report.on_told = self._bulletin.heard
        gauges = instruments.Instruments(self._settings, self.identity, self.mailbox.status)
        gauges.watch(self.contact.client, enrolment.client, self.report.client)
        gauges.watch_renewal(self.contact.renewing)
        gauges.serve()

    def bodies(
        self, stop: Stop, pause: Callable[[float], bool]
    ) -> list[tuple[str, Callable[[], None]]]:
        """What its threads do, each until `stop`; `pause` is the contact's."""
        return [
            ("loop", lambda: self.loop.run(stop)),
            ("contact", lambda: self._keep_contact(stop, pause)),
            ("report", lambda: self.report.run(stop.is_set, stop.wait)),
        ]

    def _keep_contact(self, stop: Stop, pause: Callable[[float], bool]) -> None:
        """Once the loop has read its journal, so that nothing is sent to us that we have."""
        deadline = self._world.monotonic() + HEAD_START_S
        while not self.mailbox.known_version() and self._world.monotonic() < deadline:
            if stop.wait(HEAD_START_STEP_S):
                return
        self.contact.run(pause)

    def configure(self, settings: config.Settings) -> None:
        """Log level apart: system information, pace, warnings; the rest waits for a restart."""
        self._system_info.configure(settings)
        self._settings = settings
        self.warn()
        self.report.configure(settings)
        self.report.refresh_soon()
        self.contact.configure(settings)

    def abort(self) -> None:
        """From any thread: ends the requests that are under way."""
        self.contact.abort()
        self.report.client.abort()
        self.probe.abort()

    def warn(self) -> None:
        """Told in the summary for as long as it is so."""
        warnings = list(self._settings.warnings)
        if words := self.lives.trouble():
            warnings.append(words)
        warnings += self._further()
        ways = self.identity.routes
        if ways.is_astray:
            warnings.append(
                f"{ways.configured[0].server} is out of reach; the service was found at "
                f"{ways.current.server}, as it was configured before"
            )
        for words in warnings:
            if words not in self._facts.warnings:
                log.warning("%s", words)
        self._facts.warnings = tuple(warnings)

    def _polled(self, outcome: polling.Outcome, rest_s: float) -> None:
        if isinstance(outcome, polling.Failed):
            self._bulletin.failed(outcome.why, rest_s)
        elif not isinstance(outcome, polling.Cut):
            self._bulletin.answered(rest_s)

    def _looked(self, status: reporting.Json) -> None:
        self.mailbox.set_levels(status["resources"])
        certificate = self.identity.certificate
        until = certificate.not_after_text if certificate is not None else ""
        server = self.identity.routes.current.server
        facts = {"device": self.identity.name, "certificateUntil": until, "server": server}
        self._bulletin.tell(status, facts)

    def _asked(self) -> None:
        self._outside.tell("Waiting for approval")
        self._show_banner(is_enrolled=False)

    def _connected(self) -> None:
        self._outside.tell("Connected")
        ways = self.identity.routes
        if not ways.is_astray:
            self._memory.keep(ways.current)

    def _enrolled(self) -> None:
        self._bulletin.asking()
        self.report.forget()
        self.report.refresh_soon()
        self._show_banner(is_enrolled=True)

    def _show_banner(self, *, is_enrolled: bool) -> None:
        ui, name = self._settings.enrollment_ui, self.identity.name
        self._outside.show(banner.write(self._world, ui, name, is_enrolled=is_enrolled))

    def _runtime_fact(self, key: str) -> str | None:
        certificate = self.identity.certificate
        if certificate is None:
            return None
        known = {
            # It signs the connection by which this is told.
            **({"tpmVendorInfo": "tpm-vendor-available"} if self.identity.tpm else {}),
            "managementCertNotAfter": certificate.not_after_text,
            "managementCertSerial": certificate.serial,
        }
        return known.get(key)
