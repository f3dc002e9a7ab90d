#!/usr/bin/env bash
# The agent's library for TPMs, built against the system's: what the lock file can't have, since a
# machine without libtss2-dev and a C compiler could not build it.
#
# Run by `make setup`, again and again: what is there is left alone, and nothing fails without it.
set -euo pipefail

BIN="$(dirname "$0")/../../.venv/bin"

"$BIN/python" -c "import tpm2_pytss" 2>/dev/null && exit 0
if ! command -v pkg-config >/dev/null || ! pkg-config --exists tss2-esys || ! command -v cc >/dev/null; then
  echo "setup: no libtss2-dev, pkg-config or C compiler, so agents with a TPM are not tested"
  exit 0
fi
echo "setup: building tpm2-pytss (a minute)"
"$BIN/uv" pip install --quiet --python "$BIN/python" --require-hashes --no-deps \
  -r "$(dirname "$0")/tpm.txt" || echo "setup: it can't be built, so agents with a TPM are not tested"
