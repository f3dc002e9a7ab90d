"""Which way to the service: its addresses, in the order in which the configuration names them.

A call goes the way that was answered last. Where nobody answers it goes the others, in order,
within the same call; and after a while on one of the later ones the first is tried again. All who
call the service share one `Routes`, so one of them finding out is enough.

The last way of all is the one `remembered`: the service as it was configured when it was last
reached. It serves a configuration that leads nowhere, and nothing else: there only success counts,
since a service that this device was moved away from may well say that it knows no such device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent import config, transport

log = logging.getLogger("agent.routes")

# An address that failed is tried again after this; a device that is billed by the byte pays for it.
RETURN_S = 600.0

Connect = Callable[[str, Callable[[], transport.Credentials]], transport.Client]
Shown = Callable[[config.Service], transport.Credentials]


class Routes:
    """May be asked by any thread; two that disagree cost one of them a failed connection."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        service: config.Service,
        remembered: Callable[[], config.Service | None] = lambda: None,
    ) -> None:
        self._monotonic = monotonic
        self.configured = service.each()
        self._remembered = remembered
        # Which one, and since when.
        self._taken: tuple[config.Service, float] = (self.configured[0], monotonic())
        # Called by whichever thread finds that another way leads there.
        self.on_other: Callable[[], None] = lambda: None

    @property
    def current(self) -> config.Service:
        """The one that was answered last, or else the first."""
        return self._taken[0]

    @property
    def is_astray(self) -> bool:
        """Whether only the remembered way leads to the service."""
        return self.current not in self.configured

    def order(self) -> Iterator[config.Service]:
        taken, since = self._taken
        is_first = taken == self.configured[0]
        if not is_first and self._monotonic() - since < RETURN_S:
            yield taken
        else:
            taken = self.configured[0]
            yield taken
        yield from (one for one in self.configured if one != taken)
        remembered = self._remembered()
        if remembered is not None and remembered not in (taken, *self.configured):
            yield remembered

    def answered(self, service: config.Service) -> None:
        if service != self.current:
            level = logging.WARNING if service not in self.configured else logging.INFO
            log.log(level, "service reached another way server=%s", service.server)
            self._taken = (service, self._monotonic())
            self.on_other()
        elif self._monotonic() - self._taken[1] >= RETURN_S:
            # The first was tried again, in vain.
            self._taken = (service, self._monotonic())


class Caller:
    """As one `transport.Client`, over all routes; used by one thread, ended by any."""

    def __init__(self, routes: Routes, shown: Shown, connect: Connect = transport.Client) -> None:
        self._routes = routes
        self._shown = shown
        self._connect = connect
        self._clients: dict[config.Service, transport.Client] = {}
        self._is_aborted = False
        # As the client's, for each attempt.
        self.on_done: Callable[[str, str, float, bool], None] = lambda *done: None

    @property
    def current(self) -> config.Service:
        return self._routes.current

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, timeout_s: float | None = None
    ) -> transport.Answer:
        return self.request("GET", path, query=query, timeout_s=timeout_s)

    def request(self, method: str, path: str, **request: Any) -> transport.Answer:
        """As the client's, the time limit for each way; raises what the first one said."""
        first: transport.ServiceError | None = None
        for service in self._routes.order():
            is_known = service in self._routes.configured
            try:
                answer = self._client(service).request(method, path, **request)
            except transport.Unreachable as error:
                first = first or error
                if self._is_aborted:
                    break
            except transport.ServiceError as error:
                if is_known:
                    self._settle(service)
                    raise
                first = first or error
            else:
                self._settle(service)
                return answer
        assert first is not None
        raise first

    def abort(self) -> None:
        self._is_aborted = True
        for client in list(self._clients.values()):
            client.abort()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def close_idle(self) -> None:
        for client in self._clients.values():
            client.close_idle()

    def _settle(self, service: config.Service) -> None:
        self._routes.answered(service)
        for other, client in self._clients.items():
            if other != service:
                client.close()

    def _client(self, service: config.Service) -> transport.Client:
        client = self._clients.get(service)
        if client is None:
            client = self._connect(service.server, lambda: self._shown(service))
            client.on_done = lambda *done: self.on_done(*done)
            self._clients[service] = client
            # NB race: abort() may have come before it could see this one.
            if self._is_aborted:
                client.abort()
        return client
