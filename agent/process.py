"""One life of the agent: what it is made of, which threads it has, how it ends.

    main      waits for signals and for the end of any thread
    loop      makes the specification true; knows no network
    contact   enrols, polls, renews
    report    measures and reports
    holds     answers workloads that ask for no update now

The loop starts first and needs nobody: a device without a network, without an approval or with an
expired certificate goes on doing what it was told last. A thread that ends by an error ends the
process, and systemd starts another, which observes first.

Ending takes less than 5 s: connections are shut down under their readers. A command that the loop
waits for is left behind; the journal says what it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import posixpath
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from agent import (
    banner,
    bulletin,
    collectors,
    config,
    contact,
    enrolling,
    errors,
    holddoor,
    identity,
    instruments,
    lives,
    monitors,
    notify,
    osimage,
    polling,
    remembering,
    reporting,
    sources,
    system,
    version,
)
from agent.holding import Holds
from agent.linux import LinuxWorld
from agent.loop import Reconciler
from agent.mailbox import Mailbox
from agent.settings import LoopSettings

log = logging.getLogger("agent")

STOP_S = 4.0
# NB race: a signal that comes just before the main thread begins to wait is heard after that.
LOOK_S = 5.0
# Writing a system may take an hour, a report by nine addresses nine minutes; twice that is a hang.
LOOP_PATIENCE_S = 7200.0
REPORT_PATIENCE_S = 1200.0
# A loop that cannot read its disk must not keep the device from being seen.
HEAD_START_S = 3.0
HEAD_START_STEP_S = 0.05
STOP, RELOAD = "stop", "reload"
BANNER_OFF = ("1", "true")
LEVELS = {
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


class Process:
    """Built once; `run` returns the exit status."""

    def __init__(
        self, where: LinuxWorld, settings: config.Settings, reload: Callable[[], config.Settings]
    ) -> None:
        self._world = where
        self._settings = settings
        self._reload_settings = reload
        self._events: SimpleQueue[str] = SimpleQueue()
        self._stop = threading.Event()
        self._nudge = threading.Event()
        self._notifier = notify.Notifier()
        self._mailbox = Mailbox()
        self._lives = lives.Lives(where, f"{settings.data_dir}/homeport")
        self._memory = remembering.Memory(where, settings)
        self._identity = identity.Identity(where, settings, remembered=self._memory.service)
        self._identity.routes.on_other = self._warn
        self._os_mode = system.mode_of(where)
        self._is_image_mode = self._os_mode != osimage.PACKAGE
        machine = sources.Machine(where)
        self._system_info = collectors.SystemInfo(
            where, machine, runtime=self._runtime_fact, real_path=self._real_path
        )
        self._system_info.configure(settings)
        resources = monitors.Monitors(machine, real_path=self._real_path)
        self._facts = reporting.Facts(
            where,
            settings.data_dir,
            self._system_info,
            resources,
            is_image_mode=self._is_image_mode,
        )
        self._warn()
        self._bulletin = bulletin.Bulletin(where, {"agentVersion": version.VERSION})

    def run(self) -> int:
        log.info(
            "agent started version=%s server=%s", version.VERSION, self._settings.management.server
        )
        self._world.mkdir(self._settings.data_dir)
        with self._only_one():
            self._lives.begin()
            self._warn()
            try:
                self._identity.open()
            except errors.Fatal as error:
                self._lives.end(str(error))
                raise
            self._compose()
            self._notifier.tell(notify.READY, "STATUS=Starting")
            self._catch_signals()
            threads = [self._thread(*pair) for pair in self._bodies()]
            failure = self._wait()
            self._lives.end(failure)
            self._end(threads)
        if failure:
            log.critical("agent ends: %s", failure)
            return 1
        log.info("agent stopped")
        return 0

    def _compose(self) -> None:
        settings = self._settings
        self._probe = contact.Probe(self._identity)
        self._loop = Reconciler(
            self._world,
            LoopSettings(
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
                is_pruning=settings.image_pruning_enabled,
                repairs_files=settings.drift_repair,
                audited_as=self._identity.name if settings.audit_enabled else "",
            ),
            self._mailbox,
            self._probe,
            self._os_mode,
        )
        self._door = holddoor.Door(Holds(self._world), self._real_path, self._world.wake)
        self._report = reporting.Reporting(
            self._world, settings, self._identity, self._mailbox, self._facts
        )
        enrolment = enrolling.Enrolling(
            self._world,
            settings,
            self._identity,
            facts=self._report.status,
            known_version=self._mailbox.known_version,
            is_image_mode=self._is_image_mode,
        )
        self._contact = contact.Contact(
            self._world,
            settings,
            self._identity,
            enrolment,
            self._mailbox,
            self._mailbox.known_version,
        )
        self._introduce(enrolment)

    def _introduce(self, enrolment: enrolling.Enrolling) -> None:
        """Who tells whom, and who counts."""
        settings = self._settings
        self._contact.on_enrolled = self._enrolled
        self._contact.on_conflict = self._report.forget
        self._contact.on_contact = self._report.tell_by
        self._contact.on_connected = self._connected
        self._contact.on_polled = self._polled
        enrolment.on_asked = self._asked
        enrolment.on_waiting = self._bulletin.waiting
        self._report.on_look = self._looked
        self._report.on_told = self._bulletin.heard
        gauges = instruments.Instruments(settings, self._identity, self._mailbox.status)
        gauges.watch(self._contact.client, enrolment.client, self._report.client)
        gauges.watch_renewal(self._contact.renewing)
        gauges.serve()

    def _bodies(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("loop", lambda: self._loop.run(self._stop)),
            ("contact", self._keep_contact),
            ("report", lambda: self._report.run(self._stop.is_set, self._stop.wait)),
            ("holds", lambda: self._door.run(self._stop.wait)),
        ]

    def _keep_contact(self) -> None:
        """Once the loop has read its journal, so that nothing is sent to us that we have."""
        deadline = self._world.monotonic() + HEAD_START_S
        while not self._mailbox.known_version() and self._world.monotonic() < deadline:
            if self._stop.wait(HEAD_START_STEP_S):
                return
        self._contact.run(self._pause)

    def _pause(self, seconds: float) -> bool:
        """Of the contact: ended early by a reload, which may ask for another pace."""
        self._nudge.wait(seconds)
        self._nudge.clear()
        return self._stop.is_set()

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                body()
            except (errors.Fatal, enrolling.Refused) as error:
                self._events.put(f"{name}: {error}")
            except Exception as error:  # the outermost loop of each thread: say it and end
                log.exception("thread failed thread=%s", name)
                self._events.put(f"{name}: {error!r}")
            else:
                if not self._stop.is_set():
                    self._events.put(f"{name}: ended by itself")

        # Daemons: a command that hangs must not keep the process alive.
        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _catch_signals(self) -> None:
        def heard(number: int, frame: FrameType | None) -> None:
            # SimpleQueue.put is the one thing that is safe here: it takes no lock of ours.
            self._events.put(RELOAD if number == signal.SIGHUP else STOP)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, heard)

    def _wait(self) -> str:
        """Empty = asked to stop, else what failed."""
        while True:
            try:
                event = self._events.get(timeout=self._look_s())
            except Empty:
                self._look_after()
                continue
            if event == STOP:
                return ""
            if event != RELOAD:
                return event
            self._reload()

    def _look_s(self) -> float:
        """Thrice within systemd's patience, where it has one."""
        return min(LOOK_S, self._notifier.watchdog_s / 3 or LOOK_S)

    def _look_after(self) -> None:
        """Tells systemd that we live, for as long as no thread hangs; who hangs is restarted."""
        now = self._world.monotonic()
        stuck = [
            name
            for name, moved_at, patience_s in (
                ("loop", self._loop.moved_at, LOOP_PATIENCE_S),
                ("report", self._report.looked_at, REPORT_PATIENCE_S),
            )
            if now - moved_at > patience_s
        ]
        if stuck:
            log.critical("threads hang: %s", ", ".join(stuck))
        else:
            self._notifier.tell(notify.ALIVE)
        self._warn()

    def _reload(self) -> None:
        """Log level, system information, pace, warnings; the rest waits for a restart."""
        try:
            settings = self._reload_settings()
        except (config.ConfigError, OSError) as error:
            log.error("configuration not reloaded: %s", error)
            return
        set_up_logging(settings)
        self._system_info.configure(settings)
        self._settings = settings
        self._warn()
        self._report.configure(settings)
        self._report.refresh_soon()
        self._contact.configure(settings)
        self._nudge.set()
        log.info("configuration reloaded")

    def _end(self, threads: list[threading.Thread]) -> None:
        self._notifier.tell(notify.STOPPING)
        self._stop.set()
        self._nudge.set()
        self._world.wake()
        self._contact.abort()
        self._report.client.abort()
        self._probe.abort()
        deadline = self._world.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - self._world.monotonic()))
            if thread.is_alive():
                log.warning("thread left behind thread=%s", thread.name)

    def _polled(self, outcome: polling.Outcome, rest_s: float) -> None:
        if isinstance(outcome, polling.Failed):
            self._bulletin.failed(outcome.why, rest_s)
        else:
            self._bulletin.answered(rest_s)

    def _looked(self, status: reporting.Json) -> None:
        self._mailbox.set_levels(status["resources"])
        certificate = self._identity.certificate
        until = certificate.not_after_text if certificate is not None else ""
        server = self._identity.routes.current.server
        facts = {"device": self._identity.name, "certificateUntil": until, "server": server}
        self._bulletin.tell(status, facts)

    def _asked(self) -> None:
        self._notifier.status("Waiting for approval")
        self._show_banner(is_enrolled=False)

    def _connected(self) -> None:
        self._notifier.status("Connected")
        ways = self._identity.routes
        if not ways.is_astray:
            self._memory.keep(ways.current)

    def _warn(self) -> None:
        """Told in the summary for as long as it is so."""
        warnings = list(self._settings.warnings)
        if words := self._lives.trouble():
            warnings.append(words)
        ways = self._identity.routes
        if ways.is_astray:
            warnings.append(
                f"{ways.configured[0].server} is out of reach; the service was found at "
                f"{ways.current.server}, as it was configured before"
            )
        for words in warnings:
            if words not in self._facts.warnings:
                log.warning("%s", words)
        self._facts.warnings = tuple(warnings)

    def _enrolled(self) -> None:
        self._bulletin.asking()
        self._report.forget()
        self._report.refresh_soon()
        self._show_banner(is_enrolled=True)

    def _show_banner(self, *, is_enrolled: bool) -> None:
        text = banner.write(
            self._world, self._settings.enrollment_ui, self._identity.name, is_enrolled=is_enrolled
        )
        if os.environ.get(banner.DISABLED, "").lower() not in BANNER_OFF:
            print(text, flush=True)

    def _runtime_fact(self, key: str) -> str | None:
        certificate = self._identity.certificate
        if certificate is None:
            return None
        known = {
            "managementCertNotAfter": certificate.not_after_text,
            "managementCertSerial": certificate.serial,
        }
        return known.get(key)

    def _real_path(self, path: str) -> str:
        return str(self._world.path(path))

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Two agents on one data directory would undo each other's work."""
        path = posixpath.join(self._settings.data_dir, "agent.lock")
        place: Path = self._world.path(path)
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise errors.Fatal(
                    errors.FAILED_PRECONDITION,
                    "another agent runs on this data directory",
                    component="agent",
                    element=path,
                ) from error
            yield
        finally:
            os.close(handle)


def set_up_logging(settings: config.Settings) -> None:
    """To stderr, which is the journal; no times, since the journal has better ones."""
    prefix = f"{settings.log_prefix} " if settings.log_prefix else ""
    logging.basicConfig(
        level=LEVELS[settings.log_level],
        format=f"{prefix.replace('%', '%%')}%(levelname)s %(name)s %(message)s",
        force=True,
    )
