"""FactoryReset: what a dismissed device takes away besides its identity.

By `Unenroll` the workloads stay, as with the agent that we replace; who asks for a factory reset
wants a device that can be given to somebody else. So everything that specifications brought goes:
applications with their volumes and images, files, which are again as they were before. The system
that is booted stays, and what was written by others.

It is what an empty specification would make of this device, and then the data. It is tried a few
times; what does not go must not keep the identity here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent import errors, planner, podman, specs, states, world
from agent.accounts import Accounts
from agent.observer import Observer
from agent.pruning import Pruning

log = logging.getLogger("agent.clearing")

ATTEMPTS = 5
PAUSE_S = 5.0
# Of plans that each bring a little: files first, then what they belonged to.
ROUNDS_MAX = 50
COMMAND_S = 120.0
# Of env, which a user's command is run by: there is no such program.
NOT_FOUND = 127
NOTHING = specs.Spec(states.Target(specs.NOTHING, ""))


class Clearing:
    """`perform` does a step of a plan, writing down what it does."""

    def __init__(
        self,
        where: world.World,
        observer: Observer,
        pruning: Pruning,
        perform: Callable[[planner.Step, specs.Spec], None],
    ) -> None:
        self._world = where
        self._observer = observer
        self._pruning = pruning
        self._perform = perform
        self._accounts = Accounts(where)

    def clear(self, *known: specs.Spec) -> None:
        """`known`: the specifications that the device has on its disk. Never raises for what does
        not go: the log says what."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._take_down()
                for user in ("", *(account.name for account in self._accounts.lingering())):
                    self._remove_volumes(user)
                break
            except (errors.Retry, errors.Reject, OSError) as error:
                log.error("not cleared attempt=%s: %s", attempt, error)
                self._world.sleep(PAUSE_S)
        self._pruning.forsake(*known)

    def _take_down(self) -> None:
        for _ in range(ROUNDS_MAX):
            wanted = planner.Wanted()
            plan = planner.plan(wanted, self._observer.observed(NOTHING, wanted), revives=False)
            if not plan:
                return
            for step in plan:
                self._perform(step, NOTHING)
        raise _not_yet("what was taken away comes back")

    def _remove_volumes(self, user: str) -> None:
        answer = self._accounts.run(user, podman.volumes_argv(), timeout_s=COMMAND_S)
        if answer.status in (world.NOT_STARTED, NOT_FOUND):
            return
        if not answer.ok:
            raise _not_yet(podman.last_words(answer.words))
        try:
            found = podman.volumes_of(answer.stdout)
        except ValueError as error:
            raise _not_yet(f"volumes: {error}") from error
        for volume in found:
            argv = podman.volume_remove_argv(volume)
            gone = self._accounts.run(user, argv, timeout_s=COMMAND_S)
            if not gone.ok:
                raise _not_yet(podman.last_words(gone.words))
            log.warning("volume removed name=%s user=%s", volume, user or "root")


def _not_yet(why: str) -> errors.Retry:
    return errors.Retry(errors.INTERNAL, why, component=errors.APPLICATIONS)
