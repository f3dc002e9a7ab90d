"""`make demo`: the story, live, in plain words. With `--check` nobody needs to watch.

Either way every step is checked and everything that was started is stopped, also after a failure
or Ctrl-C. Without `--check` the service and the devices stay until Ctrl-C, for a person to play.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from typing import NoReturn

from tests.e2e import osimages, rootfs
from tests.e2e.devices import Device
from tests.e2e.site import Site
from tests.e2e.story import Story

LINES_MAX = 40
DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"


class Narrator:
    """Prints the story with the time since its beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_colourful = sys.stdout.isatty()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        self._print(f"\n{self._styled(BOLD, f'[{self.elapsed_s:5.1f} s] {title}')}")

    def say(self, text: str) -> None:
        self._print(f"    {text}")

    def ran(self, command: str, output: str) -> None:
        self._print(f"    $ {command}")
        lines = output.rstrip().splitlines()
        for line in lines[:LINES_MAX]:
            self._print(self._styled(DIM, f"      {line}".rstrip()))
        if len(lines) > LINES_MAX:
            self._print(self._styled(DIM, f"      ... {len(lines) - LINES_MAX} more lines"))

    def live(self, line: str) -> None:
        self._print(self._styled(DIM, f"      | {line}"))

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self._is_colourful else text

    def _print(self, text: str) -> None:
        print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="The story, live.")
    parser.add_argument("--check", action="store_true", help="assert each step, then stop")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    narrator = Narrator()
    try:
        with Site(system="v1", settings={"service-reach-grace-after-boot": "25s"}) as site:
            _introduce(site, narrator)
            Story(site, narrator).run()
            narrator.chapter("Done: every step was checked")
            if not arguments.check:
                _stay(site, narrator)
    except KeyboardInterrupt:
        narrator.say("Stopped, and everything with it.")
        return 130
    except (AssertionError, RuntimeError, OSError) as problem:
        narrator.chapter("FAILED")
        print(f"{type(problem).__name__}: {problem}", flush=True)
        return 1
    narrator.say("Everything that was started has been stopped.")
    return 0


def _introduce(site: Site, narrator: Narrator) -> None:
    narrator.chapter("Homeport: three devices and a fleet")
    if site.why_simulated:
        narrator.say(f"[simulated] No device can be booted here ({site.why_simulated}):")
        narrator.say("[simulated] agents are plain processes, and a reboot is their restart.")
        return
    if not rootfs.is_made():
        narrator.say("First time: a Debian 13 for the devices is made, a minute and more.")
    osimages.base()
    narrator.say("Devices boot Debian 13 images with systemd and podman, on this kernel.")
    narrator.say("[simulated] bootc, greenboot and the boot loader are stand-ins over real ostree")
    narrator.say("[simulated] deployments; systemd, its reboots and podman are real.")


def _stay(site: Site, narrator: Narrator) -> None:
    narrator.say("It all stays until Ctrl-C. In another terminal:")
    narrator.say(f"  export KUBECONFIG={site.service.kubeconfig}")
    narrator.say("  kubectl get fleets,devices")
    narrator.say(f"  git clone {site.folder}/git/repositories/lighthouses.git   # push to it")
    for device in site.devices:
        if isinstance(device, Device):
            narrator.say(f"  {device.shell()}    # a shell on {device.name}")
        else:
            narrator.say(f"  ls {device.path('/')}    # the files of {device.name} [simulated]")
    narrator.say(f"  less {site.service.log}    # what the service says")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
