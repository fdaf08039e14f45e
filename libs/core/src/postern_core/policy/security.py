"""What is said of TLS and of AUTH at one gate."""

from __future__ import annotations

import enum

import msgspec


class TlsUse(enum.StrEnum):
    """Whether a session needs TLS. TLS ports are not concerned: there it begins at once."""

    AUTO = "auto"  # the gate's own: the anonymous one offers it when it has a certificate, the authenticated one requires it
    OFF = "off"  # STARTTLS is not offered; not possible at the authenticated gate
    OPTIONAL = "optional"  # offered; AUTH goes inside it all the same
    REQUIRED = "required"  # 530 5.7.0 to everything else before it


class TlsVersion(enum.StrEnum):
    """The oldest version that is spoken; nothing older than 1.2 can be said (RFC 8996)."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class CipherFloor(enum.StrEnum):
    """The weakest ciphers that are taken; each of them has forward secrecy and 128 bits at least."""

    STANDARD = "standard"
    AEAD = "aead"  # of TLS 1.2 those with AEAD alone, as RFC 9325 section 4.2 recommends
    BITS_256 = "256-bit"  # AEAD, with keys of 256 bits


class ListenerTls(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """TLS at one gate, for handshakes that begin from now on."""

    use: TlsUse = TlsUse.AUTO
    min_version: TlsVersion = TlsVersion.TLS_1_2
    ciphers: CipherFloor = CipherFloor.STANDARD


class Mechanism(enum.StrEnum):
    """Ways to authenticate, each inside TLS only."""

    PLAIN = "PLAIN"  # RFC 4616
    LOGIN = "LOGIN"  # what was there before
    SCRAM_SHA_256 = "SCRAM-SHA-256"  # RFC 7677: the password does not travel
    EXTERNAL = "EXTERNAL"  # RFC 4422 appendix A: by client certificate, and offered to who showed one


class ListenerAuthentication(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """AUTH at the authenticated gate; the anonymous one has none."""

    mechanisms: tuple[Mechanism, ...] = tuple(Mechanism)  # in the order in which EHLO names them
