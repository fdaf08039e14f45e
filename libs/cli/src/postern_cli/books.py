"""Commands on the books: `postern ledger` shows them, `ledger hours` by the hour, `ledger verify` compares them with the mail.

`verify` ends with 0 when the books balance, 1 when they do not, and 2 when that could not be found out.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile

ledger = typer.Typer(help="The books, in recipients: accepted = ended in each way + in flight. Shown when no command is given.")

UNVERIFIED: Final = 2
_WALK_S: Final = 600.0  # hundreds of thousands of messages take minutes
_SHOWN: Final = ("delivered", "bounced", "expired", "deleted", "held", "forwarded", "split", "badmail", "in_flight")


@ledger.callback(invoke_without_command=True)
def show(context: typer.Context, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Show the books, in recipients: accepted = ended in each way + in flight."""
    if context.invoked_subcommand is not None:
        # they would not count for the command, and another stack would be looked at than was meant
        if any(source and source.name == "COMMANDLINE" for source in map(context.get_parameter_source, context.params)):
            raise typer.BadParameter(f"options go behind the command: postern ledger {context.invoked_subcommand} …")
        return
    answer = Control(state, api, token_file).get("/ledger")
    for name, value in answer["total"].items():
        typer.echo(f"{name:12} {value:10}")
    _print_late(answer["open_too_long"])


@ledger.command()
def hours(
    since: Annotated[str, typer.Option(help="From this moment on, as 2026-03-01T09:00:00Z; default: a day before --until.")] = "",
    until: Annotated[str, typer.Option(help="Up to this moment; default: now.")] = "",
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Show the books of each hour in which mail was accepted, by gate."""
    answer = Control(state, api, token_file).get("/ledger/hours", since=since, until=until)
    typer.echo(" ".join((f"{'hour (UTC)':16} {'gate':8} {'accepted':>9}", *(f"{name:>9}" for name in _SHOWN))))
    for row in answer["rows"]:
        hour = row["hour"][:16].replace("T", " ")
        typer.echo(" ".join((f"{hour:16} {row['gate']:8} {row['accepted']:9}", *(f"{row[name]:9}" for name in _SHOWN))))


@ledger.command()
def verify(
    grace: Annotated[float, typer.Option(min=0.01, max=600, help="Seconds for which something has to look wrong.")] = 15,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Compare ledger, streams and retry queue id by id. Ends with 0 when they agree, 1 when not, 2 when that could not be found out."""
    try:
        found = Control(state, api, token_file).get("/ledger/verification", timeout_s=_WALK_S + grace, grace_s=grace)
    except typer.Exit as error:
        typer.echo("postern: the books could not be verified", err=True)
        raise typer.Exit(UNVERIFIED) from error
    for each in found["discrepancies"]:
        typer.echo(f"{each['job_id'] or each['queue_id']}  {each['detail']}")
    if found["count"] > len(found["discrepancies"]):
        typer.echo(f"and {found['count'] - len(found['discrepancies'])} more")
    if found["undecided"]:
        typer.echo(f"{found['undecided']} look wrong, but the api has not recorded all that it was told of them: try again")
    _print_late(found["open_too_long"])
    numbers = found["looked_at"]
    typer.echo("looked at: " + ", ".join(f"{name} {number}" for name, number in numbers.items()))
    if found["balanced"]:
        typer.secho("the books balance", bold=True)
        return
    typer.secho(f"the books do not balance: {found['count']} discrepancies" if found["count"] else "not verified", bold=True)
    raise typer.Exit(1 if found["count"] else UNVERIFIED)


def _print_late(late: dict[str, Any]) -> None:
    if late["count"]:
        typer.secho(
            f"{late['count']} messages are open for more than {late['older_than_s']:g} s: {' '.join(late['ids'])}", bold=True
        )
