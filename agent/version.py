"""Which agent this is; a test keeps it equal to `setup.cfg`.

A constant, since a device may run a bare checkout that no package manager knows.
"""

from __future__ import annotations

import os

VERSION = "2026.11.0"
# Set where images and packages are built.
COMMIT = os.environ.get("HOMEPORT_COMMIT", "unknown")
