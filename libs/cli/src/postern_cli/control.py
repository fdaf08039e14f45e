"""The REST API, as the commands use it: address and token come from options, or from the state directory of a running embedded stack."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    import httpx  # where it is used: `postern up` asks nothing, and would keep ten megabytes of it for as long as it runs

State = Annotated[Path, typer.Option("--state", envvar="POSTERN_UP_STATE", help="State directory of an embedded stack.")]
Api = Annotated[str, typer.Option("--api", envvar="POSTERN_API", help="URL of the API; default: that of the embedded stack.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", envvar="POSTERN_TOKEN_FILE", help="File with an API token; default: that of the embedded stack."
    ),
]
DEFAULT_STATE: Final = Path("var")
_TIMEOUT_S: Final = 30.0


class Control:
    """One client of the API. A problem ends the command with one clear line."""

    def __init__(self, state: Path, api: str, token_file: Path | None) -> None:
        if not api or token_file is None:
            endpoints = read_endpoints(state)
            api = api or endpoints["api"]
            token_file = token_file or Path(endpoints["admin_token_file"])
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ended(f"cannot read the token in {token_file}: {error.strerror}") from error
        import httpx

        base = f"{api.rstrip('/')}/api/v1"
        self._client = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT_S)

    def get(self, path: str, *, timeout_s: float = _TIMEOUT_S, **query: str | float) -> Any:
        """The decoded answer, which may take `timeout_s`; empty values of `query` are left out."""
        import httpx

        params = {name: value for name, value in query.items() if value != ""}
        return self._call("GET", path, params=params, timeout=httpx.Timeout(_TIMEOUT_S, read=timeout_s)).json()

    def find(self, path: str) -> Any:
        """As `get`, but None when there is no such object."""
        answer = self._call("GET", path, absent_ok=True)
        return None if answer.status_code == HTTPStatus.NOT_FOUND else answer.json()

    def read(self, path: str) -> bytes:
        """The answer as it is."""
        return self._call("GET", path).content

    def post(self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = _TIMEOUT_S) -> Any:
        """The decoded answer, which may take `timeout_s`."""
        import httpx

        return self._call("POST", path, json=body, timeout=httpx.Timeout(_TIMEOUT_S, read=timeout_s)).json()

    def delete(self, path: str, **query: str) -> Any:
        """The decoded answer, None when it has no body; empty values of `query` are left out."""
        answer = self._call("DELETE", path, params={name: value for name, value in query.items() if value != ""})
        return answer.json() if answer.content else None

    def _call(self, method: str, path: str, *, absent_ok: bool = False, **more: Any) -> httpx.Response:
        import httpx

        try:
            answer = self._client.request(method, path, **more)
        except httpx.InvalidURL as error:
            raise ended(f"--api {self._client.base_url}: {error}") from error
        except httpx.TransportError as error:
            raise ended(f"the API at {self._client.base_url} does not answer: {error}") from error
        if answer.is_error and not (absent_ok and answer.status_code == HTTPStatus.NOT_FOUND):
            raise ended(_complaint(answer))
        return answer


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def _complaint(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except json.JSONDecodeError:
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    return f"{message or answer.reason_phrase} ({answer.status_code})"


def read_endpoints(state: Path) -> dict[str, Any]:
    """`endpoints.json` of a running embedded stack; ends the command when there is none."""
    path = state / "endpoints.json"
    try:
        endpoints: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ended(
            f"no stack runs in {state} (no {path}): start `postern up`, or give --state, or --api and --token-file"
        ) from error
    except (OSError, ValueError) as error:
        raise ended(f"{path}: {error}") from error
    return endpoints


def ended(message: str) -> typer.Exit:
    """Print `message` as an error; raise what this returns."""
    typer.echo(f"postern: {message}", err=True)
    return typer.Exit(1)
