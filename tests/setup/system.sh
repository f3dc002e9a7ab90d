#!/usr/bin/env bash
# System packages for the demo and the tests. Filled in by the end-to-end room.
set -euo pipefail
