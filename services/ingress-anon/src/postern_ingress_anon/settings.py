"""Settings of the anonymous gate, beside those that both gates have."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from postern_core.settings import ExistingFile, ExistingFolder
from postern_smtp.gate_settings import GateSettings
from postern_smtp.listener import parse_listen


class Settings(GateSettings):
    """POSTERN_* of the anonymous gate."""

    listen: str = Field(
        default="127.0.0.1:2525", description="Addresses to listen on, host:port, separated by commas; IPv6 as [::1]:2525."
    )
    tls_cert_file: ExistingFile | None = Field(
        default=None, description="Certificate chain (PEM); with it, STARTTLS is offered. None: no TLS at this gate."
    )
    tls_key_file: ExistingFile | None = Field(default=None, description="Key of the certificate (PEM, no passphrase).")
    tls_certificates_dir: ExistingFolder | None = Field(
        default=None,
        description="Folder of further certificates, chosen by the name that a client asks for (SNI): NAME.crt or NAME.pem with NAME.key, "
        "and folders with fullchain.pem and privkey.pem, tls.crt and tls.key, or cert.pem and key.pem. None: there are no others.",
    )
    memory_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=4 * 1024 * 1024,
        description="Message data that all sessions together may hold, in bytes; over it, senders get 452 4.3.1.",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        parse_listen(value)
        return value

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("set both POSTERN_TLS_CERT_FILE and POSTERN_TLS_KEY_FILE, or neither")
        if self.tls_certificates_dir is not None and self.tls_cert_file is None:
            raise ValueError("POSTERN_TLS_CERTIFICATES_DIR needs POSTERN_TLS_CERT_FILE too: for clients that ask for no name")
        return self
