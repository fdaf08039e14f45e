"""Which ESMTP extensions a listener offers. What it does not offer it does not announce, and refuses as if it did not know it."""

from __future__ import annotations

import msgspec


class ListenerExtensions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A switch for each extension that somebody may want to be without; the others are always offered."""

    chunking: bool = True  # RFC 3030: BDAT
    binarymime: bool = True  # RFC 3030: BODY=BINARYMIME; not without chunking
    dsn: bool = True  # RFC 3461: RET, ENVID, NOTIFY, ORCPT
    smtputf8: bool = True  # RFC 6531: addresses and header fields in UTF-8
    requiretls: bool = True  # RFC 8689, inside TLS: the message goes on over verified TLS only, or back
    limits: bool = True  # RFC 9422
