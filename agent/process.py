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
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from agent import (
    assembly,
    banner,
    child,
    config,
    downloads,
    enrolling,
    errors,
    holddoor,
    notify,
    version,
)
from agent.holding import Holds
from agent.linux import LinuxWorld

log = logging.getLogger("agent")

STOP_S = 4.0
# NB race: a signal that comes just before the main thread begins to wait is heard after that.
LOOK_S = 5.0
# Writing a system may take an hour, a report by nine addresses nine minutes; twice that is a hang.
LOOP_PATIENCE_S = 7200.0
REPORT_PATIENCE_S = 1200.0
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
        outside = assembly.Outside(
            tell=self._notifier.status,
            show=_show,
            real_path=self._real_path,
            # Below a root of its own a child would know other paths than the agent.
            downloader=child.command(downloads.MODULE) if where.is_whole_machine() else (),
        )
        self._agent = assembly.Agent(where, settings, outside)
        self._door = holddoor.Door(Holds(where), self._real_path, where.wake)

    def run(self) -> int:
        log.info(
            "agent started version=%s server=%s", version.VERSION, self._settings.management.server
        )
        self._world.mkdir(self._settings.data_dir)
        with self._only_one():
            self._agent.begin()
            self._notifier.tell(notify.READY, "STATUS=Starting")
            self._catch_signals()
            threads = [self._thread(*pair) for pair in self._bodies()]
            failure = self._wait()
            self._agent.lives.end(failure)
            self._end(threads)
        if failure:
            log.critical("agent ends: %s", failure)
            return 1
        log.info("agent stopped")
        return 0

    def _bodies(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            *self._agent.bodies(self._stop, self._pause),
            ("holds", lambda: self._door.run(self._stop.wait)),
        ]

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
                ("loop", self._agent.loop.moved_at, LOOP_PATIENCE_S),
                ("report", self._agent.report.looked_at, REPORT_PATIENCE_S),
            )
            if now - moved_at > patience_s
        ]
        if stuck:
            log.critical("threads hang: %s", ", ".join(stuck))
        else:
            self._notifier.tell(notify.ALIVE)
        self._agent.warn()

    def _reload(self) -> None:
        """Log level, system information, pace, warnings; the rest waits for a restart."""
        try:
            settings = self._reload_settings()
        except (config.ConfigError, OSError) as error:
            log.error("configuration not reloaded: %s", error)
            return
        set_up_logging(settings)
        self._settings = settings
        self._agent.configure(settings)
        self._nudge.set()
        log.info("configuration reloaded")

    def _end(self, threads: list[threading.Thread]) -> None:
        self._notifier.tell(notify.STOPPING)
        self._stop.set()
        self._nudge.set()
        self._world.wake()
        self._agent.abort()
        deadline = self._world.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - self._world.monotonic()))
            if thread.is_alive():
                log.warning("thread left behind thread=%s", thread.name)

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


def _show(text: str) -> None:
    if os.environ.get(banner.DISABLED, "").lower() not in BANNER_OFF:
        print(text, flush=True)


def set_up_logging(settings: config.Settings) -> None:
    """To stderr, which is the journal; no times, since the journal has better ones."""
    prefix = f"{settings.log_prefix} " if settings.log_prefix else ""
    logging.basicConfig(
        level=LEVELS[settings.log_level],
        format=f"{prefix.replace('%', '%%')}%(levelname)s %(name)s %(message)s",
        force=True,
    )
