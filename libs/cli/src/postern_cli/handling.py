"""Commands that act on mail: the retry queue, and the quarantine."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile, ended, segment

queue = typer.Typer(no_args_is_help=True, help="The retry queue.")
quarantine = typer.Typer(no_args_is_help=True, help="Held mail.")

QueueId = Annotated[str, typer.Argument(help="Queue id, as the 250 named it.")]
OptionalQueueId = Annotated[str, typer.Argument(help="All jobs of this message.", show_default=False)]
Route = Annotated[str, typer.Option(help="All jobs of this route.")]
All = Annotated[bool, typer.Option("--all", help="All jobs.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")]
_PAGE: Final = 100


@queue.command("list")
def queue_list(
    route: Annotated[str, typer.Option(help="Only this route.")] = "",
    limit: Limit = _PAGE,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Jobs that wait for another attempt."""
    page = Control(state, api, token_file).get("/queue", route=route, limit=limit)
    for row in page["rows"]:
        typer.echo(
            f"{row['queue_id']}  {row['route']:12} {row['state']:8} {row['attempts']} attempts, next {row['next_attempt_at'][:19]}  "
            f"{', '.join(row['recipients'])}  {row['last_reply']}".rstrip()
        )
    typer.echo(f"{page['total']} in all")


def _selection(queue_id: str, route: str, everything: bool) -> dict[str, Any]:
    if sum(map(bool, (queue_id, route, everything))) != 1:
        raise ended("give exactly one of: a queue id, --route, --all")
    return {"queue_id": queue_id} if queue_id else {"route": route} if route else {"all": True}


def _register(verb: str, explanation: str) -> None:
    @queue.command(verb, help=explanation)
    def command(
        queue_id: OptionalQueueId = "",
        *,
        route: Route = "",
        everything: All = False,
        state: State = DEFAULT_STATE,
        api: Api = "",
        token_file: TokenFile = None,
    ) -> None:
        selection = _selection(queue_id, route, everything)
        typer.echo(f"{Control(state, api, token_file).post(f'/queue/{verb}', selection)['changed']} changed")


_register("retry", "Try again now.")
_register("hold", "Make no attempt until resumed.")
_register("resume", "Go on with attempts.")


@queue.command("delete")
def queue_delete(
    queue_id: OptionalQueueId = "",
    *,
    route: Route = "",
    everything: All = False,
    with_ndr: Annotated[bool, typer.Option("--with-ndr", help="Return the mail to its sender.")] = False,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """End jobs; their senders are told only with --with-ndr."""
    selection = _selection(queue_id, route, everything) | {"with_ndr": with_ndr}
    typer.echo(f"{Control(state, api, token_file).post('/queue/delete', selection)['changed']} changed")


@quarantine.command("list")
def quarantine_list(limit: Limit = _PAGE, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Held messages, newest first, and why they are held."""
    page = Control(state, api, token_file).get("/quarantine", limit=limit)
    for row in page["rows"]:
        why = row["detail"] or row["rule_name"] or row["reason"]
        typer.echo(
            f"{row['queue_id']}  {row['reverse_path'] or '<>'} → {', '.join(row['recipients'])}  {row['subject']!r}  {why}"
        )
    typer.echo(f"{page['total']} in all")


@quarantine.command("show")
def quarantine_show(
    queue_id: QueueId,
    raw: Annotated[bool, typer.Option("--raw", help="The message itself, as received.")] = False,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """One held message: why it is held, its envelope and its header."""
    control = Control(state, api, token_file)
    if raw:
        sys.stdout.buffer.write(control.read(f"/quarantine/{segment(queue_id)}/raw"))
        return
    typer.echo(json.dumps(control.get(f"/quarantine/{segment(queue_id)}"), indent=2, ensure_ascii=False))


@quarantine.command("release")
def quarantine_release(queue_id: QueueId, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Deliver it to its recipients after all."""
    released = Control(state, api, token_file).post(f"/quarantine/{segment(queue_id)}/release")
    typer.echo("released" if released["jobs"] else "had been released before")


@quarantine.command("forward")
def quarantine_forward(
    queue_id: QueueId,
    to: Annotated[str, typer.Argument(help="Address.")],
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Send it to another address instead."""
    forwarded = Control(state, api, token_file).post(f"/quarantine/{segment(queue_id)}/forward", {"to": to})
    successor = forwarded["successor_id"]
    typer.echo(f"forwarded to {to} as {successor}" if successor else "had been forwarded before")


@quarantine.command("delete")
def quarantine_delete(queue_id: QueueId, state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Delete it; nobody is told."""
    Control(state, api, token_file).delete(f"/quarantine/{segment(queue_id)}")
    typer.echo("deleted")
