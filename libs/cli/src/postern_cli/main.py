"""The `postern` command: the embedded stack, and what an administrator asks and changes over the API."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from postern_cli import alerting, books, handling, observing
from postern_cli.addresses import Addresses, read_remembered, remember, settle_addresses, split_address
from postern_cli.control import DEFAULT_STATE, State, ended, read_endpoints
from postern_cli.layout import locked
from postern_cli.screening import screening
from postern_cli.sessions import sessions
from postern_cli.submission import compose, submit
from postern_core.broker.files import write_broker_files
from postern_core.broker.permissions import BrokerAddress
from postern_core.errors import ConfigurationError
from postern_core.telemetry import configure_logging

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A screening SMTP relay.", pretty_exceptions_enable=False)
app.add_typer(handling.queue, name="queue")
app.add_typer(handling.quarantine, name="quarantine")
app.add_typer(sessions, name="sessions")
app.add_typer(screening, name="screening")
app.command()(observing.trace)
app.command()(observing.status)
app.command()(observing.alarms)
app.add_typer(alerting.alerts, name="alerts")
app.add_typer(books.ledger, name="ledger")


class GateName(StrEnum):
    """Where `postern send` hands mail in."""

    ANON = "anon"  # the anonymous gate
    AUTH = "auth"  # the authenticated gate, by STARTTLS and as the demo user


@app.command()
def up(
    *,
    state: State = DEFAULT_STATE,
    anon: Annotated[str, typer.Option(envvar="POSTERN_UP_ANON", help="Anonymous gate.")] = Addresses.anon,
    auth_starttls: Annotated[
        str, typer.Option(envvar="POSTERN_UP_AUTH_STARTTLS", help="Authenticated gate, STARTTLS.")
    ] = Addresses.auth_starttls,
    auth_tls: Annotated[
        str, typer.Option(envvar="POSTERN_UP_AUTH_TLS", help="Authenticated gate, TLS from the start.")
    ] = Addresses.auth_tls,
    api: Annotated[str, typer.Option(envvar="POSTERN_UP_API", help="REST API.")] = Addresses.api,
    smart_host: Annotated[str, typer.Option(envvar="POSTERN_UP_SMART_HOST", help="Demo smart host.")] = Addresses.smart_host,
    nats: Annotated[str, typer.Option(envvar="POSTERN_UP_NATS", help="Broker.")] = Addresses.nats,
    workers: Annotated[int, typer.Option(envvar="POSTERN_UP_WORKERS", min=1, max=64, help="Screener processes.")] = 1,
) -> None:
    """Start the embedded stack; Ctrl-C stops it. Every address is HOST:PORT; port 0 takes a free one, the same at every start."""
    # the stack's own import of the bus takes a while that the other commands need not wait
    from postern_cli.embedded import run_embedded

    configure_logging("up", "embedded", "warning", "text")
    monitor = f"{nats.rpartition(':')[0]}:0"
    wanted = Addresses(anon, auth_starttls, auth_tls, api, smart_host, nats, monitor)
    try:
        with locked(state) as layout:
            before = read_remembered(layout.addresses)
            addresses = settle_addresses(wanted, before)
            layout.prepare()
            asyncio.run(
                run_embedded(
                    layout, addresses, workers=workers, before=before, on_ready=lambda: remember(layout.addresses, addresses)
                )
            )
    except ConfigurationError as error:
        raise ended(str(error)) from error


@app.command()
def send(
    *,
    to: Annotated[list[str], typer.Option(help="Recipient; may be given several times.")],
    gate: Annotated[GateName, typer.Option(help="Which gate.")] = GateName.ANON,
    sender: Annotated[str, typer.Option("--from", help="Reverse-path and From:.")] = "sender@origin.example",
    subject: Annotated[str, typer.Option(help="Subject:.")] = "A test message",
    body: Annotated[str, typer.Option(help="Text.")] = "Sent by `postern send`.",
    attach: Annotated[list[Path] | None, typer.Option(help="File to attach; may be given several times.")] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Send a test message through a gate of the embedded stack."""
    try:
        message = compose(sender, to, subject, body, attach or ())
    except OSError as error:
        raise ended(f"--attach {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise ended(f"this makes no message: {error}") from error
    typer.echo(submit(read_endpoints(state), gate.value, sender, to, message))


@app.command()
def broker_config(
    out: Annotated[Path, typer.Option(help="Where to write nats.conf.")],
    secrets: Annotated[Path, typer.Option(help="Folder for <user>/nats.password of each broker user.")],
    store: Annotated[str, typer.Option(help="Folder of the streams, as the broker sees it.")] = "/data",
    listen: Annotated[str, typer.Option(help="HOST:PORT of the broker.")] = "127.0.0.1:4222",
    monitor_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the broker's monitoring.")] = 8222,
) -> None:
    """Write the configuration of a nats-server with Postern's users and permissions. Passwords that are there stay."""
    try:
        host, port = split_address(listen)
        bracketed = f"[{host}]" if ":" in host else host
        write_broker_files(out, secrets, BrokerAddress(bracketed, port, monitor_port, store))
    except ValueError as error:
        raise ended(f"--listen {error}") from error
    except OSError as error:
        raise ended(f"{error.filename}: {error.strerror}") from error
    typer.echo(f"{out} and the passwords in {secrets} are in place")
