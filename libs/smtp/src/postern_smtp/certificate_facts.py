"""What stands in certificate files: names, and from when to when they are valid (RFC 5280; names as RFC 6125 section 6.4 compares them).

A program of its own, `python -m postern_smtp.certificate_facts FILE…`, which prints them as JSON: a gate would keep the X.509 library for as
long as it runs, eleven megabytes of it, for a look that it takes when a file has changed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

_PATIENCE_S: Final = 30.0
_AT_ONCE: Final = 500  # files; an argument list is bounded


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of the first certificate in a file, or why there are none."""

    names: tuple[str, ...] = ()  # lower case, A-labels; `*.domain` for one label more
    not_before: datetime | None = None
    not_after: datetime | None = None
    error: str = ""


def read_facts(files: Sequence[Path]) -> list[Facts]:
    """Of each file, in order. Takes a fraction of a second. What cannot be read has an `error`."""
    if "cryptography.x509" in sys.modules:  # somebody has paid for it already
        return [facts_of(file) for file in files]
    found: list[Facts] = []
    for start in range(0, len(files), _AT_ONCE):
        found += _ask(files[start : start + _AT_ONCE])
    return found


def _ask(files: Sequence[Path]) -> list[Facts]:
    command = [sys.executable, "-P", "-m", __name__, *map(str, files)]
    try:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=True)
        return msgspec.json.decode(answer.stdout, type=list[Facts])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        return [Facts(error=f"could not be looked into: {type(error).__name__}")] * len(files)


def facts_of(file: Path) -> Facts:
    """See `read_facts`."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        return Facts(error=str(error).partition("\n")[0] or type(error).__name__)
    names: list[str] = []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = list(alternatives.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):  # ValueError: an extension that does not decode
        names = []
    if not names:  # RFC 6125 section 6.4.4: the last resort
        names = [str(entry.value) for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return Facts(
        names=tuple(dict.fromkeys(name.lower() for name in names)),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode([facts_of(Path(name)) for name in sys.argv[1:]]))
