"""Settings of the anonymous gate, beside those that both gates have."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from postern_core.settings import ExistingFile, ExistingFolder
from postern_ingress_anon.directory_settings import DEFAULT_FILTER, DirectorySettings, checked_filter, parse_uris
from postern_smtp.gate_settings import GateSettings
from postern_smtp.ports import parse_listen


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

    ldap_uri: str = Field(
        default="",
        description="The directory that knows the mailboxes of domains with `recipients: directory`: ldaps://host:port or ldap://host:port, several separated by blanks and tried in order; none: no directory.",
    )
    ldap_start_tls: bool = Field(default=True, description="StartTLS to ldap:// servers; without it the bind is anonymous.")
    ldap_ca_file: ExistingFile | None = Field(
        default=None, description="CA certificates for TLS to the directory; none: those of the system."
    )
    ldap_base_dn: str = Field(default="", description="Where the search begins.")
    ldap_filter: str = Field(
        default=DEFAULT_FILTER,
        description="What finds an entry of an existing mailbox; {address}, {local_part} and {domain} stand for the recipient's, escaped.",
    )
    ldap_bind_dn: str = Field(default="", description="Who looks (simple bind); none: anonymous.")
    ldap_password_file: ExistingFile | None = Field(default=None, description="File with the password of POSTERN_LDAP_BIND_DN.")
    ldap_timeout_s: int = Field(
        default=5, ge=1, le=30, description="For each of connecting, TLS, binding and searching, in seconds."
    )

    @field_validator("ldap_uri")
    @classmethod
    def _ldap_uri(cls, value: str) -> str:
        parse_uris(value)
        return value

    @field_validator("ldap_filter")
    @classmethod
    def _ldap_filter(cls, value: str) -> str:
        return checked_filter(value)

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

    @model_validator(mode="after")
    def _password_in_tls(self) -> Self:
        if bool(self.ldap_bind_dn) != (self.ldap_password_file is not None):
            raise ValueError("set both POSTERN_LDAP_BIND_DN and POSTERN_LDAP_PASSWORD_FILE, or neither")
        servers = parse_uris(self.ldap_uri)
        if self.ldap_bind_dn and not self.ldap_start_tls and not all(server.implicit_tls for server in servers):
            raise ValueError("POSTERN_LDAP_BIND_DN needs TLS: ldaps://, or POSTERN_LDAP_START_TLS=true")
        return self

    def directory(self) -> DirectorySettings | None:
        """None: there is no directory."""
        if not self.ldap_uri.strip():
            return None
        return DirectorySettings(
            servers=parse_uris(self.ldap_uri),
            start_tls=self.ldap_start_tls,
            ca_file=self.ldap_ca_file,
            base_dn=self.ldap_base_dn,
            filter=self.ldap_filter,
            bind_dn=self.ldap_bind_dn,
            password_file=self.ldap_password_file,
            timeout_s=self.ldap_timeout_s,
        )
