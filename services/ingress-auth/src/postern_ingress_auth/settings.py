"""Settings of the authenticated gate, beside those that both gates have."""

from __future__ import annotations

from pydantic import Field, field_validator

from postern_core.settings import ExistingFile, ExistingFolder
from postern_smtp.gate_settings import GateSettings
from postern_smtp.ports import parse_listen


class Settings(GateSettings):
    """POSTERN_* of the authenticated gate."""

    listen_starttls: str = Field(
        default="127.0.0.1:2587",
        description="Addresses where the client starts TLS by STARTTLS, host:port, separated by commas; empty: none.",
    )
    listen_tls: str = Field(
        default="127.0.0.1:2465",
        description="Addresses where TLS starts at once, host:port, separated by commas; empty: none.",
    )
    tls_cert_file: ExistingFile = Field(description="Certificate chain (PEM), issued for the name that clients use.")
    tls_key_file: ExistingFile = Field(description="Key of the certificate (PEM, no passphrase).")
    tls_certificates_dir: ExistingFolder | None = Field(
        default=None,
        description="Folder of further certificates, chosen by the name that a client asks for (SNI): NAME.crt or NAME.pem with NAME.key, "
        "and folders with fullchain.pem and privkey.pem, tls.crt and tls.key, or cert.pem and key.pem. None: there are no others.",
    )
    tls_client_ca_file: ExistingFile | None = Field(
        default=None,
        description="CA certificates (PEM): clients are asked for a certificate, and who shows one of theirs may log in by it (AUTH EXTERNAL). "
        "None: they are not asked.",
    )
    auth_concurrency: int = Field(
        default=2, ge=1, le=64, description="Passwords verified at the same time; each takes a core and 19 MiB for a moment."
    )
    auth_attempts: int = Field(default=3, ge=1, le=20, description="Failed AUTH commands a session, then 421.")

    @field_validator("listen_starttls", "listen_tls")
    @classmethod
    def _listen(cls, value: str) -> str:
        if value.strip():
            parse_listen(value)
        return value.strip()
