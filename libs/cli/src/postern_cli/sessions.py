"""Commands about the sessions of the gates: who is connected, and ending that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile, ended, segment

sessions = typer.Typer(no_args_is_help=True, help="Who is connected to the gates.")

Gate = Annotated[str, typer.Option(help="Only of this gate: anon or auth.")]
Client = Annotated[str, typer.Option(help="Only of this address or network.")]


@sessions.command("list")
def sessions_list(
    gate: Gate = "",
    client: Client = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    *,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Who is connected now, the oldest first."""
    page = Control(state, api, token_file).get("/sessions", gate=gate, client=client, limit=limit)
    for row in page["sessions"]:
        name = " ".join(filter(None, (row["host"], row["user"] and f"as {row['user']}", row["tls"] and "TLS")))
        typer.echo(
            f"{row['id']}  {row['gate']:4} {row['client']:15} {row['state']:7} {row['age_s']:.0f} s, idle {row['idle_s']:.0f} s, "
            f"{row['messages']} messages  {name}".rstrip()
        )
    typer.echo(f"{page['total']} in all")
    _name_silent(page)


@sessions.command("end")
def sessions_end(
    session: Annotated[str, typer.Argument(help="One session, by its id.", show_default=False)] = "",
    gate: Gate = "",
    client: Client = "",
    *,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """End one session, or all of a gate. A message that is being stored is answered first."""
    if bool(session) == bool(gate) or (session and client):
        raise ended("give a session, or --gate and perhaps --client")
    control = Control(state, api, token_file)
    answer = control.delete(f"/sessions/{segment(session)}") if session else control.delete("/sessions", gate=gate, client=client)
    typer.echo(f"{answer['ended']} ended")
    _name_silent(answer)


def _name_silent(answer: dict[str, Any]) -> None:
    for replica in answer["replicas"]:
        if not replica["answered"]:
            typer.echo(f"{replica['instance']} ({replica['gate']}) does not answer: its sessions are not known", err=True)
