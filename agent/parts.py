"""What the loop is made of, put together. Decides nothing.

Each part knows only the world, its bounds and the parts that it works with; the loop alone knows
them all. None of them is shared with another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent import audit, journal, machine, specs, system, world
from agent.accounts import Accounts
from agent.applications import Applications
from agent.appsteps import AppSteps
from agent.boots import Boots
from agent.bundles import Bundles
from agent.charts import Charts
from agent.executor import Executor
from agent.files import Files
from agent.gates import Gates
from agent.helmapps import HelmApps
from agent.hookruns import HookRuns
from agent.images import Stores
from agent.observer import Content, Observer, Starts
from agent.places import Places
from agent.pruning import Pruning
from agent.pulling import Pulling
from agent.pulse import Pulse
from agent.settings import LoopSettings
from agent.stamps import Stamps
from agent.throttle import Throttle
from agent.verifying import Verifier
from resources.records import dataclass


@dataclass(frozen=True, slots=True)
class Parts:
    files: Files
    system: system.System
    hooks: HookRuns
    bundles: Bundles
    pulling: Pulling
    applications: Applications
    charts: HelmApps
    observer: Observer
    executor: Executor
    verifier: Verifier
    specs: specs.SpecFiles
    journal: journal.Journal
    gates: Gates
    pruning: Pruning
    pulse: Pulse


def assemble(
    where: world.World,
    settings: LoopSettings,
    os_mode: str | None,
    levels: Callable[[], Mapping[str, str]],
) -> Parts:
    """`os_mode` None = found out when it is first asked for."""
    own_dir = settings.own_dir
    files, starts = Files(where, settings.data_dir, own_dir), Starts(where, own_dir)
    hooks = HookRuns(where, own_dir, Boots(where, settings.data_dir))
    stamps = Stamps(where, own_dir)
    pulling = Pulling(where, settings, Throttle(settings.download_rate))
    accounts = Accounts(where)
    places = Places(where, accounts)
    stores = Stores(where, pulling, accounts)
    bundles = Bundles(where, settings, stores, accounts)
    charts = HelmApps(where, settings, stamps, Charts(where, settings, pulling))
    pulse = Pulse(where, accounts)
    apps = Applications(where, settings, bundles, stamps, charts, pulse, accounts, places)
    content = Content(stores, bundles, apps, charts, pulse)
    observer = Observer(where, settings, files, starts, content, accounts)
    steps = AppSteps(
        where, settings, apps, stores, bundles, stamps, starts, charts, accounts, places
    )
    return Parts(
        files=files,
        system=system.System(where, settings, os_mode, pulling),
        hooks=hooks,
        bundles=bundles,
        pulling=pulling,
        applications=apps,
        charts=charts,
        observer=observer,
        pulse=pulse,
        executor=Executor(where, settings, files, starts, observer, stores, steps, hooks),
        verifier=Verifier(where, settings, accounts),
        specs=specs.SpecFiles(
            where, settings.data_dir, own_dir, audit.Audit(where, settings.audited_as)
        ),
        journal=journal.Journal(where, f"{own_dir}/journal.jsonl"),
        gates=Gates(where, levels),
        pruning=Pruning(
            where,
            settings.data_dir,
            stores,
            accounts,
            observer.images,
            charts.images,
            is_on=settings.is_pruning,
        ),
    )


def bounds(settings: LoopSettings) -> machine.Bounds:
    return machine.Bounds(
        repair_interval_s=settings.repair_interval_s,
        verify_interval_s=settings.verify_interval_s,
        start_grace_s=settings.start_grace_s,
        stability_s=settings.stability_s,
        reach_s=settings.reach_s,
        reach_interval_s=settings.reach_interval_s,
        boot_reach_s=settings.boot_reach_s,
        boot_complete_s=settings.boot_complete_s,
        reboot_patience_s=settings.reboot_patience_s,
    )
