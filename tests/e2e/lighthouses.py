"""What lies in the demo's Git repository: a fleet and its devices' files, commit by commit."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e import osimages
from tests.e2e.osimages import File
from tests.e2e.site import Device

FLEET = "fleets/lighthouses.yaml"
LAMP = "/etc/lighthouse/lamp.conf"
PORT, HORN_PORT = 8080, 8081
# How long applications must stay well before an update counts as done: longer than `web:late` does.
STABILITY_S = 35

MANIFEST = """apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata:
  name: lighthouses
spec:
  selector:
    matchLabels:
      site: harbour
  template:
    metadata:
      labels:
        fleet: lighthouses
    spec:
{system}      config:
        - name: files
          gitRef:
            repository: lighthouses
            targetRevision: main
            path: /device
      applications:
        - name: web
          appType: container
          image: localhost:5000/web:{web}
          ports:
            - "8080:80"
{horn}"""
SYSTEM = """      os:
        image: localhost:5000/os:{system}
"""
HORN = """        - name: horn
          appType: quadlet
          inline:
            - path: horn.container
              content: |
                [Container]
                Image=localhost:5000/web:{horn}
                PublishPort=8081:80

                [Install]
                WantedBy=default.target
"""
# The same for one device, which shall be another fleet's for a while. Nothing of it can come true.
EXPERIMENT = """apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata:
  name: experiments
spec:
  selector:
    matchLabels:
      site: laboratory
  template:
    spec:
      config:
        - name: lamp
          inline:
            - path: /etc/lighthouse/lamp.conf
              content: |
                interval = never
      applications:
        - name: web
          appType: container
          image: localhost:5000/web:broken
          ports:
            - "8080:80"
"""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a lighthouse shall be: operating system, pages of its two applications, its lamp."""

    system: str
    web: str
    horn: str
    interval_s: int

    @property
    def lamp(self) -> str:
        return f"interval = {self.interval_s}s\n"

    def is_on(self, device: Device, *, has_system: bool = True) -> bool:
        """Whether that device is so, as seen on it."""
        if device.read(LAMP) != self.lamp or device.http(PORT) != f"web {self.web}\n":
            return False
        return not has_system or (
            device.read("/usr/lib/os-version") == f"{self.system}\n"
            and device.http(HORN_PORT) == f"web {self.horn}\n"
        )

    def files(self, *, has_system: bool) -> dict[str, str]:
        """Of the whole repository. Without systemd there is neither system nor quadlet."""
        manifest = MANIFEST.format(
            system=SYSTEM.format(system=self.system) if has_system else "",
            web=self.web,
            horn=HORN.format(horn=self.horn) if has_system else "",
        )
        return {FLEET: manifest, f"device{LAMP}": self.lamp}


FIRST = Commit("v1", "v1", "v1", 10)
NEXT = Commit("v2", "v2", "v2", 5)
FALLS_ILL = Commit("v2", "late", "v3", 1)
DEAD_AGENT = Commit("dead-agent", "v3", "v3", 2)
CUT_OFF = Commit("cut-off", "v3", "v3", 3)
BETTER = Commit("v2", "v3", "v3", 4)

# Connections to high ports are dropped: the service, but neither registry nor applications.
WRONG_RULES = """table inet wrong {
  chain out {
    type filter hook output priority 0;
    tcp dport >= 10000 tcp flags & (syn | ack) == syn drop
  }
}
"""
FIREWALL = """[Unit]
Description=A firewall that somebody got wrong
Before=flightctl-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft --file /usr/lib/wrong.nft

[Install]
WantedBy=multi-user.target
"""


def systems() -> dict[str, osimages.Layer]:
    """The operating systems that a device is sent to, good and bad, by version."""
    wrong = {
        "usr/lib/wrong.nft": File(WRONG_RULES.encode()),
        f"{osimages.UNITS}/firewall.service": File(FIREWALL.encode()),
        f"{osimages.UNITS}/multi-user.target.wants/firewall.service": File(
            target="../firewall.service"
        ),
    }
    return {
        "v2": osimages.system("v2"),
        "dead-agent": osimages.system("dead-agent", has_agent=False),
        "cut-off": osimages.system("cut-off", extra=wrong),
    }
