"""TLS towards a repository: whom to trust, who we are. Keys touch no disk on the way."""

from __future__ import annotations

import os
import ssl


def context(
    *, authorities: str = "", certificate: str = "", key: str = "", verify: bool = True
) -> ssl.SSLContext:
    """PEM texts; without `authorities`, those of the machine. Raises ssl.SSLError, ValueError."""
    made = ssl.create_default_context(cadata=authorities or None)
    if not verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if certificate:
        # The library reads certificates from files only; this one has no name and ends here.
        descriptor = os.memfd_create("client-certificate")
        with open(descriptor, "w") as file:
            file.write(f"{certificate.rstrip()}\n{key}")
            file.flush()
            made.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return made
