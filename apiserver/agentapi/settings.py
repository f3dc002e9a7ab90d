"""The limits of the agent API. Everything has one, and saying no is explicit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentApiSettings:
    """What an operator, or a test, may set. Seconds and bytes, as the names say."""

    # The reference's agent gives up after 4 minutes, proxies before; its service holds for 2.
    hold_s: float = 120.0
    # A status with hundreds of applications is 100 KB.
    body_bytes_max: int = 1024 * 1024
    # A device has a poll, a status and a renewal under way; more are retries of lost answers.
    requests_per_device: int = 8
    # Polls, reports and renewals in a second; 0 for no bound. An agent makes a few in a minute.
    requests_per_s_device: float = 200.0
    requests_per_s_enrollment_certificate: float = 1_000.0
    # One enrolment certificate may be in the OS image of a whole factory.
    requests_per_enrollment_certificate: int = 256
    # The second is the connection that replaces one which died unseen.
    polls_per_device: int = 2
    # Entries are small (300 bytes); a device that is not among them costs a query a poll.
    remembered_devices: int = 200_000
    remembered_bodies_bytes: int = 16 * 1024 * 1024
    remembered_certificates: int = 50_000
    # A TPM that makes an RSA key for it may need half of this.
    challenge_s: float = 60.0
    # What changes within this time is looked up together.
    coalesce_s: float = 0.01
    # After the change log could not be read, or a delivery not be marked.
    retry_s: float = 1.0
    presence_flush_s: float = 8.0
    # A device that came back is shown so this soon.
    presence_urgent_s: float = 0.25
    disconnected_after_s: float = 300.0
    sweep_every_s: float = 30.0
    # Devices that could not reach a stopped service get this long before any is called gone.
    sweep_grace_s: float = 60.0
    # Above what a reference agent leaves between two requests (a status a minute).
    keepalive_s: float = 300.0
    drain_s: float = 8.0
