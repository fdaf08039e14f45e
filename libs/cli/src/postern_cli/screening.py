"""Commands that try rules before they bite."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from postern_cli.control import DEFAULT_STATE, Api, Control, State, TokenFile, ended

screening = typer.Typer(no_args_is_help=True, help="Rules, tried before they bite.")

_TIMEOUT_S: Final = 90.0  # a hundred thousand phrases take their time, at the lowest priority


@screening.command("test")
def screening_test(
    message: Annotated[Path, typer.Argument(help="The message, an .eml file.", exists=True, dir_okay=False)],
    rules: Annotated[Path | None, typer.Option(help="JSON list of rules, in place of those in force.", exists=True)] = None,
    revision: Annotated[int, typer.Option(min=0, help="Of the policy; default: the newest.")] = 0,
    gate: Annotated[str, typer.Option(help="Where it would come in: anon or auth.")] = "anon",
    sender: Annotated[str, typer.Option("--from", help="Reverse-path.")] = "",
    *,
    state: State = DEFAULT_STATE,
    api: Api = "",
    token_file: TokenFile = None,
) -> None:
    """What would come of a message, and why. Nothing is stored or sent."""
    body: dict[str, Any] = {
        "message": base64.b64encode(message.read_bytes()).decode(),
        "envelope": {"gate": gate, "reverse_path": sender},
    }
    if rules is not None:
        try:
            body["rules"] = json.loads(rules.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ended(f"{rules}: {error}") from error
    if revision:
        body["revision"] = revision
    for line in _lines(Control(state, api, token_file).post("/screening/test", body, timeout_s=_TIMEOUT_S)):
        typer.echo(line)


def _lines(found: dict[str, Any]) -> list[str]:
    verdict = found["verdict"]
    if verdict is None:
        return [f"its inspection fails: {found['failure']}"]
    lines = [f"{verdict['decision']}  {verdict['detail']}".rstrip()]
    if found["deferral"]:
        lines.insert(0, f"waits  {found['deferral']}; when it has waited long enough:")
    lines += [f"  {place['part']} +{place['offset']}: {place['excerpt']}" for place in found["places"]]
    for rule in found["rules"] or ():
        lines.append(f"{rule['rule_id']}  {rule['outcome']:9}  {rule['rule_name']}  {rule['because']}".rstrip())
    return lines
