"""Looks mailboxes up in an LDAP directory (RFC 4511): there is one when the search finds an entry.

Whatever else the directory says, it says nothing of the mailbox: that it is away, that it does not like our password, that the base is not there, that
it knows somebody else who knows (referrals are not followed). The password goes through TLS only, whose certificate is verified.
ldap3 waits for its sockets, so it works in threads, as many as questions that the policy lets be under way to one whom it asks, and eight at most; each
step is time-boxed there, too. A connection is kept for the next question, and a dead one noticed at that: it is asked once more, on a new one.
Known gap: ldap3 has had no release since 2021. It is the one client that needs no C library in the image; nothing else imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from postern_ingress_anon.directory_settings import DirectorySettings, LdapServer, filter_for
from postern_ingress_anon.questions import Mailbox

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports names of pyasn1 that have new ones
    import ldap3
    from ldap3.core.exceptions import LDAPExceptionError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_THREADS: Final = 8
_SUCCESS: Final = 0  # RFC 4511 section 4.1.9
_SIZE_LIMIT_EXCEEDED: Final = 4
_Connection = Any  # ldap3 has no types


class _DirectoryError(Exception):
    """It did not answer, or not what we asked."""


class _Tls(ldap3.Tls):  # type: ignore[misc]
    """The standard library's verification in place of ldap3's, which compares names by itself, by rules that have been withdrawn."""

    def __init__(self, settings: DirectorySettings) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = ssl.create_default_context(cafile=settings.ca_file)

    def wrap_socket(self, connection: _Connection, do_handshake: bool = False) -> None:
        """For TLS at once, and for StartTLS."""
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


class LdapDirectory:
    """One for each process."""

    def __init__(self, settings: DirectorySettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="directory")
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()
        self._tls = _Tls(settings)

    async def ask(self, address: str) -> Mailbox:
        """Whether there is this mailbox. Raises nothing."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, address)
        except Exception as error:  # whatever it is (ldap3 raises what its decoder does, too), nobody knows of the mailbox
            log.warning("directory.failed", reason=str(error) or type(error).__name__)
            return Mailbox.UNAVAILABLE
        return Mailbox.EXISTS if found else Mailbox.UNKNOWN

    def close(self) -> None:
        """Let go of idle connections; questions under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while not self._idle.empty():
            _discard(self._idle.get())

    # --- in a thread

    def _look_up(self, address: str) -> bool:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return self._search(self._open(), address)
        try:
            return self._search(connection, address)
        except Exception:  # it may have been closed while it was idle
            return self._search(self._open(), address)

    def _search(self, connection: _Connection, address: str) -> bool:
        try:
            _, result, response, _ = connection.search(
                self._settings.base_dn,
                filter_for(self._settings.filter, address),
                search_scope=ldap3.SUBTREE,
                attributes=[ldap3.NO_ATTRIBUTES],
                size_limit=1,
                time_limit=self._settings.timeout_s,
            )
        except BaseException:
            _discard(connection)
            raise
        if result["result"] not in {_SUCCESS, _SIZE_LIMIT_EXCEEDED}:
            _discard(connection)
            raise _DirectoryError(f"search: {result['description']} {result['message']}".strip())
        self._idle.put(connection)
        return result["result"] == _SIZE_LIMIT_EXCEEDED or any(each["type"] == "searchResEntry" for each in response or ())

    def _open(self) -> _Connection:
        reasons = []
        for server in self._settings.servers:
            try:
                return self._open_at(server)
            except Exception as error:  # as above
                reasons.append(f"{server.host}: {error or type(error).__name__}")
        raise _DirectoryError("; ".join(reasons))

    def _open_at(self, server: LdapServer) -> _Connection:
        settings = self._settings
        has_user = bool(settings.bind_dn)
        connection = ldap3.Connection(
            ldap3.Server(
                server.host,
                server.port,
                use_ssl=server.implicit_tls,
                tls=self._tls,
                get_info=ldap3.NONE,
                connect_timeout=settings.timeout_s,
            ),
            user=settings.bind_dn or None,
            # read each time: it may have been changed
            password=_password(settings) if has_user else None,
            authentication=ldap3.SIMPLE if has_user else ldap3.ANONYMOUS,
            client_strategy=ldap3.SAFE_SYNC,
            receive_timeout=settings.timeout_s,
            auto_referrals=False,
            auto_bind=ldap3.AUTO_BIND_NONE,
            read_only=True,
        )
        try:
            connection.open()
            if settings.start_tls and not server.implicit_tls:
                _succeeded("StartTLS", connection.start_tls(), "refused")
            bound, result, _, _ = connection.bind()
            _succeeded("bind", bound, result["description"])
        except BaseException:
            _discard(connection)
            raise
        return connection


def _password(settings: DirectorySettings) -> str:
    if settings.password_file is None:
        raise _DirectoryError("there is no password")
    return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")


def _succeeded(what: str, succeeded: bool, otherwise: str) -> None:
    if not succeeded:
        raise _DirectoryError(f"{what}: {otherwise}")


def _discard(connection: _Connection) -> None:
    with contextlib.suppress(LDAPExceptionError, OSError):  # it is gone, which is what was wanted
        connection.unbind()
