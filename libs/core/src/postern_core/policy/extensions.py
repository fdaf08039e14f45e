"""Which ESMTP extensions a listener offers. What it does not offer it does not announce, and refuses as if it did not know it."""

from __future__ import annotations

import msgspec


class ListenerExtensions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A switch for each extension that somebody may want to be without; the others are always offered."""

    chunking: bool = True  # RFC 3030: BDAT
    binarymime: bool = True  # RFC 3030: BODY=BINARYMIME; not without chunking
    dsn: bool = True  # RFC 3461: RET, ENVID, NOTIFY, ORCPT
    limits: bool = True  # RFC 9422
