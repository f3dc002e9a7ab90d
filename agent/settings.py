"""The bounds that the agent's core works within, each with its reason; tests inject shorter ones.

Separate from the configuration file: who reads that file builds one of these.
"""

from __future__ import annotations

from resources.records import dataclass

DATA_DIR = "/var/lib/flightctl"

REQUIRE = "require"
REPORT = "report"


@dataclass(frozen=True, slots=True)
class LoopSettings:
    # Where the spec files are; our own things are in `homeport/` below it.
    data_dir: str = DATA_DIR
    # Drift is found at the latest after this.
    repair_interval_s: float = 30.0
    # How long an application may take to become healthy after an update.
    start_grace_s: float = 30.0
    # How long it must then stay well to count as such: its check succeeds, its container is not
    # started again. An application that falls ill later than this is not the update's fault.
    stability_s: float = 3.0
    # Between two looks at an application that is starting.
    verify_interval_s: float = 1.0
    # How long the service may stay out of reach before an update is blamed for it (law 9).
    reach_s: float = 60.0
    reach_interval_s: float = 5.0
    # The same after a reboot: modems and wireless networks take their time.
    boot_reach_s: float = 180.0
    # Health checks of a boot: ours take up to 210 s, others stand beside them.
    boot_complete_s: float = 600.0
    # A reboot that was ordered and has not happened by then is ordered again.
    reboot_patience_s: float = 300.0
    # How long the news of a reboot may take to reach the service before it is ordered.
    notice_s: float = 5.0
    # One attempt to pull an image, and how many of them before the back-off is reported.
    pull_timeout_s: float = 600.0
    command_timeout_s: float = 600.0
    # The reference's back-off between attempts at a download.
    retry_base_s: float = 5.0
    retry_max_s: float = 300.0
    # A hook that asked for another time is asked again after this.
    later_s: float = 60.0
    # Bytes a second that all downloads together may take; 0 = no limit.
    download_rate: float = 0.0
    # What carries a download out and watches it; empty = the tool runs alone.
    downloader: tuple[str, ...] = ()
    # Whether images that no specification needs any more are removed.
    is_pruning: bool = False
    # Whether files that somebody has changed are put right; else it is only told.
    repairs_files: bool = True
    # `require`: an application with a limit that this machine cannot enforce is refused.
    # `report`: it runs without the limit, and the status says so.
    limits: str = REQUIRE
    # A release in the cluster on which somebody seems to be at work for so long is cleared: helm
    # itself waits for five minutes at most.
    orphan_s: float = 300.0
    # How long helm waits for what it installs; helm's own default.
    chart_wait_s: float = 300.0
    # For helm and kubectl; empty = MicroShift's, or root's own.
    kubeconfig: str = ""
    # This program, for helm to call.
    program: str = "/usr/bin/flightctl-agent"
    # How long the news of a decommissioning may take to reach the service before the wipe.
    farewell_s: float = 60.0
    # The name that this device's audit log has it by; empty = no log is kept.
    audited_as: str = ""

    @property
    def own_dir(self) -> str:
        return f"{self.data_dir}/homeport"
