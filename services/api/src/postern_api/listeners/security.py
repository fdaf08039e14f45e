"""TLS and AUTH of a listener at the HTTP edge: the fields of their structs in `postern_core.policy.security`."""

from __future__ import annotations

from pydantic import Field

from postern_api.fields import Body, examples
from postern_core.policy import CipherFloor, ListenerAuthentication, ListenerTls, Mechanism, TlsUse, TlsVersion


class TlsBody(Body):
    """TLS at one gate, for handshakes that begin from now on."""

    model_config = examples({"use": "required", "min_version": "1.2", "ciphers": "aead"}, {})

    use: TlsUse = Field(
        default=TlsUse.AUTO,
        description="auto: the anonymous gate offers STARTTLS when it has a certificate, the authenticated one requires it. "
        "Not off at the authenticated gate; without a certificate a gate refuses to require it.",
    )
    min_version: TlsVersion = Field(default=TlsVersion.TLS_1_2, description="The oldest version that is spoken.")
    ciphers: CipherFloor = Field(
        default=CipherFloor.STANDARD,
        description="The weakest that are taken. standard: forward secrecy and 128 bits; aead: with AEAD in TLS 1.2, too; "
        "256-bit: with AEAD and 256 bits.",
    )

    def to_object(self) -> ListenerTls:
        return ListenerTls(use=self.use, min_version=self.min_version, ciphers=self.ciphers)

    @classmethod
    def of(cls, tls: ListenerTls) -> TlsBody:
        return cls(use=tls.use, min_version=tls.min_version, ciphers=tls.ciphers)


class AuthenticationBody(Body):
    """AUTH at the authenticated gate; the anonymous one has none, and does not look at it."""

    model_config = examples({"mechanisms": ["SCRAM-SHA-256", "EXTERNAL"]}, {})

    mechanisms: list[Mechanism] = Field(
        default_factory=lambda: list(ListenerAuthentication().mechanisms),
        description="In the order in which EHLO names them; at least one. EXTERNAL is offered to clients that showed a certificate of "
        "a CA in POSTERN_TLS_CLIENT_CA_FILE.",
    )

    def to_object(self) -> ListenerAuthentication:
        return ListenerAuthentication(mechanisms=tuple(dict.fromkeys(self.mechanisms)))

    @classmethod
    def of(cls, authentication: ListenerAuthentication) -> AuthenticationBody:
        return cls(mechanisms=list(authentication.mechanisms))
