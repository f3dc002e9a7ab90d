"""Keeps this device in contact with the service: enrol, poll, renew; and enrol again if need be.

One thread, never in a hurry and never giving up. It has no part in making a specification true:
whatever happens here, the loop beside it goes on with what it knows.

What ends the certificate's life:
- the service says twice that there is no such device: the certificate is dropped, the key stays,
  and the device enrols again under its old name;
- it has expired, by our clock, *and* polls fail: then, between polls that go on with the old one,
  rounds of enrolment are made with the same key. Both, because a clock may be wrong and the
  enrolment credentials may be long gone; whichever works first wins, and nothing is thrown away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from agent import (
    certificates,
    child,
    config,
    enrolling,
    identity,
    pace,
    polling,
    provisioning,
    routes,
    transport,
    world,
)

log = logging.getLogger("agent.contact")

Json = dict[str, Any]
Pause = Callable[[float], bool]

PROBE_TIMEOUT_S = 10.0


class Offers(Protocol):
    """The part of `Mailbox` that takes specifications to the loop."""

    def offer_spec(self, device: Json) -> None: ...


class Contact:
    """`on_enrolled` is called whenever a certificate was granted, `on_conflict` when the service
    asks for the whole status again, `on_connected` when a poll was answered after a silence,
    `on_contact` while the connection of an answered poll is there, where it is then closed, and
    `on_polled` after every poll with the seconds until the next."""

    def __init__(
        self,
        where: world.World,
        settings: config.Settings,
        who: identity.Identity,
        enrolment: enrolling.Enrolling,
        offers: Offers,
        known_version: Callable[[], str],
        *,
        ask: identity.Ask = child.ask,
    ) -> None:
        self._world = where
        self._settings = settings
        self._identity = who
        self._enrolment = enrolment
        self._offers = offers
        self._known_version = known_version
        self.client = who.caller()
        self.renewing = certificates.Renewing(where, who, self.client)
        self.provisioning = provisioning.Provisioning(
            where,
            who,
            self.client,
            config_dir=settings.config_dir,
            own_dir=f"{settings.data_dir}/homeport",
            ask=ask,
        )
        self._is_connected = False
        self.on_enrolled: Callable[[], None] = lambda: None
        self.on_conflict: Callable[[], None] = lambda: None
        self.on_connected: Callable[[], None] = lambda: None
        self.on_polled: Callable[[polling.Outcome, float], None] = lambda outcome, rest_s: None
        self.on_contact: Callable[[routes.Caller], None] = lambda client: None

    def run(self, pause: Pause) -> None:
        """Until `pause` says that the agent stops. Raises enrolling.Refused, errors.Fatal."""
        while True:
            if not self._identity.is_enrolled and not self._enrolment.run(pause):
                return
            self.on_enrolled()
            if not self._poll(pause):
                return
            log.error("the service knows this device no more, it enrols again")
            self._identity.drop_certificate()

    def configure(self, settings: config.Settings) -> None:
        """From any thread: the pace of polls, from the next one on."""
        self._settings = settings

    def abort(self) -> None:
        """From any thread: ends the request that is under way."""
        self.client.abort()
        self._enrolment.client.abort()

    def _poll(self, pause: Pause) -> bool:
        """True = the device is gone from the service; False = the agent stops."""
        poll = polling.Poll(base_delay_s=0.0, max_delay_s=0.0)
        # The first poll may be held for two minutes.
        self._provide()
        while True:
            settings, at_pace = self._settings, pace.of(self._settings)
            poll.configure(
                base_delay_s=settings.fetch_error_base_delay_s,
                max_delay_s=settings.fetch_error_max_delay_s,
                at_pace=at_pace,
            )
            started = self._world.monotonic()
            poll.learn(self._known_version())
            outcome = self._once(poll)
            if isinstance(outcome, polling.Gone):
                return True
            self._tell(outcome)
            self._care(outcome)
            if at_pace.is_metered:
                if not isinstance(outcome, polling.Failed | polling.Cut):
                    self.on_contact(self.client)
                self.client.close()
            took_s = self._world.monotonic() - started
            rest_s = poll.pause_s(took_s=took_s, random=self._world.random())
            self.on_polled(outcome, rest_s)
            if pause(rest_s):
                return False

    def _once(self, poll: polling.Poll) -> polling.Outcome:
        path = f"/devices/{quote(self._identity.name, safe='')}/rendered"
        query = {"knownRenderedVersion": poll.known} if poll.known else None
        begun = self._world.monotonic()
        try:
            answer = self.client.get(path, query, timeout_s=polling.TIMEOUT_S)
            self.renewing.hurry(answer.renew_within_s)
            return poll.answered(answer)
        except transport.ServiceError as error:
            return poll.failed(error, took_s=self._world.monotonic() - begun)

    def _tell(self, outcome: polling.Outcome) -> None:
        if isinstance(outcome, polling.Cut):
            log.info("poll cut off: %s", outcome.why)
            return
        if isinstance(outcome, polling.Failed):
            log.log(
                logging.WARNING if self._is_connected else logging.INFO,
                "poll failed: %s",
                outcome.why,
            )
            self._is_connected = False
            return
        if not self._is_connected:
            self._is_connected = True
            self._enrolment.forget_credentials()
            self.on_connected()
        if isinstance(outcome, polling.Offered):
            if polling.annotations_of(outcome.device).get(polling.CONFLICT_PAUSED) == "true":
                self.on_conflict()
            self._offers.offer_spec(outcome.device)

    def _care(self, outcome: polling.Outcome) -> None:
        """The certificate's turn: renewal while it lives, enrolment when it is dead."""
        if not isinstance(outcome, polling.Failed):
            self.renewing.step()
            self._provide()
        elif outcome.is_refusal and self._identity.is_expired():
            certificate = self._identity.certificate
            assert certificate is not None
            log.error("the management certificate expired at %s", certificate.not_after_text)
            verdict = self._enrolment.round()
            if verdict is None:
                self.on_enrolled()
            else:
                log.info("enrolling again name=%s: %s", self._identity.name, verdict.why)

    def _provide(self) -> None:
        try:
            self.provisioning.step()
        except transport.ServiceError as error:
            log.info("further certificates wait for the service: %s", error)


class Probe:
    """Law 9: can this device reach the service, with the certificate that it has?

    Called by the loop's thread. A connection of its own for each call, since the question is
    whether one can be made; only the head of the answer is read. By the addresses that are
    configured: one that only is remembered does not make a configuration good.
    """

    def __init__(self, who: identity.Identity) -> None:
        self._identity = who
        self._client: transport.Client | None = None
        self._is_aborted = False

    def __call__(self) -> bool | None:
        """None = nobody can say: not enrolled, or the service answers and is ill."""
        if not self._identity.is_enrolled:
            return None
        answers = []
        for service in self._identity.routes.configured:
            answers.append(self._ask(service))
            if answers[-1] or self._is_aborted:
                break
        return next((one for one in answers if one is not False), False)

    def _ask(self, service: config.Service) -> bool | None:
        client = self._identity.client(service)
        self._client = client
        path = f"/devices/{quote(self._identity.name, safe='')}/rendered"
        try:
            client.request("GET", path, timeout_s=PROBE_TIMEOUT_S, want_body=False)
        except (transport.Rejected, transport.Throttled) as error:
            # It answered over mutual TLS; what it thinks of us is not the network's fault.
            return True if error.status < 500 else None
        except transport.ServiceError as error:
            log.info("the service is out of reach: %s", error)
            return False
        finally:
            self._client = None
            client.close()
        return True

    def abort(self) -> None:
        self._is_aborted = True
        client = self._client
        if client is not None:
            client.abort()
