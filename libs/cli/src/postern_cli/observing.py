"""Commands that look: trace, status, alarms."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile, ended, segment

UNKNOWN: Final = 2
_POLL_S: Final = 0.2


def trace(
    queue_id: Annotated[str, typer.Argument(help="Queue id, as the 250 named it.")] = "",
    last: Annotated[int, typer.Option(min=0, max=100, help="The newest messages instead.")] = 0,
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait until they have come to an end.")] = 0,
    *,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """Show what became of a message: each step, and the end of each recipient."""
    if bool(queue_id) == bool(last):
        raise ended("trace: give a queue id, or --last N")
    control = Control(state, api, token_file)
    deadline = time.monotonic() + wait
    while True:
        traces = _traces(control, queue_id, last)
        if time.monotonic() >= deadline or (len(traces) >= (last or 1) and all(map(_settled, traces))):
            break
        time.sleep(_POLL_S)
    if not traces:
        raise ended(f"there is no message {queue_id!r}" if queue_id else "there is no message yet")
    for each in traces:
        _print_trace(each)


def _traces(control: Control, queue_id: str, last: int) -> list[dict[str, Any]]:
    """The oldest first, so that a terminal ends with the newest."""
    ids = [queue_id] if queue_id else [row["id"] for row in reversed(control.get("/messages", limit=last)["rows"])]
    found = [control.find(f"/messages/{segment(each)}") for each in ids]
    return [each for each in found if each is not None]


def _settled(told: dict[str, Any]) -> bool:
    """Whether nothing more happens soon: every recipient has come to an end, or waits in the retry queue."""
    if told["message"] is not None and not told["message"]["open"]:
        return True
    return any(place["stream"] == "DEFERRED" for place in told["places"] or ())


def _print_trace(told: dict[str, Any]) -> None:
    message = told["message"] or {}
    sender = message.get("reverse_path")
    typer.secho(f"{told['id']}  from {'<>' if sender == '' else sender or '?'}", bold=True)
    for event in told["events"]:
        fields = " ".join(f"{name}={value}" for name, value in event["fields"].items() if value != "")
        typer.echo(f"  {event['at'][11:23]}  {event['service']:13} {event['kind']:14} {fields}")
    for end in told["dispositions"]:
        detail = end["detail"] or end["reply"]
        typer.echo(
            f"  {end['at'][11:23]}  {end['recipient']} {'was ' if end['is_final'] else 'is '}{end['kind']}  {detail}".rstrip()
        )
    if message.get("open") and told["places"]:
        typer.echo(f"  now in {', '.join(place['stream'] for place in told['places'])}")


def status(state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Show which replicas run, and which policy revision each has in force."""
    answer = Control(state, api, token_file).get("/status")
    typer.echo(f"policy revision {answer['revision']}")
    counts = answer["alarms"]
    if counts["critical"] or counts["warning"]:
        typer.secho(f"alarms: {counts['critical']} critical, {counts['warning']} warning (postern alarms)", bold=True)
    for replica in answer["replicas"]:
        ready = "ready" if replica["ready"] else "not ready"
        problem = replica.get("policy_error") or ""
        revision = f"revision {replica['revision']}"
        typer.echo(f"  {replica['service']:13} {replica['instance']:20} {revision:14} {ready:10} {problem}".rstrip())


def alarms(state: State = DEFAULT_STATE, api: Api = "", token_file: TokenFile = None) -> None:
    """Show what has to be looked at. Ends with 0 when nothing critical is up, 1 when something is, 2 when that could not be found out."""
    try:
        answer = Control(state, api, token_file).get("/alarms")
    except typer.Exit as error:
        typer.echo("postern: the alarms are not known", err=True)
        raise typer.Exit(UNKNOWN) from error
    for each in answer["alarms"]:
        head = " ".join(filter(None, (each["severity"], each["kind"], each["about"])))
        typer.secho(f"{head}  since {each['since'][:19].replace('T', ' ')} UTC", bold=True)
        typer.echo(f"  {each['summary']}\n  to do: {each['advice']}")
    if answer["unseen"]:
        typer.echo(f"not seen: {', '.join(answer['unseen'])}")
    if answer["looked_at"] is None:
        typer.echo("the api has just started and has not looked yet: try again", err=True)
        raise typer.Exit(UNKNOWN)
    if not answer["alarms"]:
        typer.echo("no alarms")
    if answer["critical"]:
        raise typer.Exit(1)
