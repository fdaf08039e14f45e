"""Commands about alerts: list, acknowledge, reset."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile, segment
from postern_cli.observing import UNKNOWN

alerts: Final = typer.Typer(invoke_without_command=True, help="What happened that an administrator may have to know.")
Kind = Annotated[str, typer.Argument(help="Kind of alert, as `postern alerts` names it.")]


@alerts.callback()
def listed(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="What was counted or is quiet, too.")] = False,
    *,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Show the alerts that are raised. Ends with 0 when none is open, 1 when one is, 2 when that could not be found out."""
    if context.invoked_subcommand is not None:
        return
    try:
        answer = Control(state, api, token_file).get("/alerts")
    except typer.Exit as error:
        typer.echo("postern: the alerts are not known", err=True)
        raise typer.Exit(UNKNOWN) from error
    shown = [each for each in answer["alerts"] if everything or each["standing"] in ("open", "acknowledged")]
    for each in shown:
        _print(each)
    if not shown:
        typer.echo("no alerts")
    if answer["open"]:
        raise typer.Exit(1)


@alerts.command()
def acknowledge(kind: Kind, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Say that it has been seen: it is open no more, until it is raised again."""
    _print(Control(state, api, token_file).post(f"/alerts/{segment(kind)}/acknowledge"))


@alerts.command()
def reset(kind: Kind, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Begin to count anew; what was silent until a reset is not any more."""
    _print(Control(state, api, token_file).post(f"/alerts/{segment(kind)}/reset"))


def _print(alert: dict[str, Any]) -> None:
    typer.secho(f"{alert['standing']} {alert['kind']}  {alert['title']}", bold=True)
    if not alert["count"]:
        return
    raised = f", raised {alert['raises']} times, at last {_time(alert['raised_at'])}" if alert["raised_at"] else ""
    typer.echo(f"  {alert['count']} events from {_time(alert['first_at'])} to {_time(alert['last_at'])}{raised}")
    if alert["acknowledged_at"]:
        typer.echo(f"  acknowledged {_time(alert['acknowledged_at'])} by {alert['acknowledged_by']}")
    if alert["up"]:
        typer.echo(f"  up now: {', '.join(alert['up'])} (postern alarms)")
    for subject in alert["subjects"][:5]:
        # what a client said is shown as it is written down, and moves no cursor
        typer.echo(f"  since then {subject['count']}: {subject['about']!a}")


def _time(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"
