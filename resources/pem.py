"""How certificate requests are written: PEM or, from a TPM, a binary bundle; not what they say.

Signatures and names inside are the signers' business; here a text is only taken apart. Blanks at
the ends of lines are allowed, since manifests are written by hand.
"""

from __future__ import annotations

from resources import formats

LABEL = "CERTIFICATE REQUEST"
_BEGIN, _END = f"-----BEGIN {LABEL}-----", f"-----END {LABEL}-----"
# TCG-CSR-IDEVID, version 1.0: what a device whose key lives in a TPM sends.
TPM_MAGIC = b"\x01\x00\x01\x00"


def request(text: str) -> str | None:
    """None if `text` is one certificate request in PEM, else what is wrong with it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if not lines or lines[0] != _BEGIN:
        return f"must be PEM beginning with {_BEGIN}"
    if _END not in lines:
        return f"must be PEM ending with {_END}"
    end = lines.index(_END)
    if end != len(lines) - 1:
        return f"must hold nothing after {_END}"
    body = [line for line in lines[1:end] if line]
    if not body or formats.decoded("".join(body)) is None:
        return "must have base64 between its first and last line"
    return None


def request_or_tpm(text: str) -> str | None:
    """As `request`, but a TPM's bundle in base64 is right too."""
    if not text.strip().startswith("-----"):
        blob = formats.decoded(text.strip())
        if blob is not None and blob.startswith(TPM_MAGIC):
            return None
    return request(text)
