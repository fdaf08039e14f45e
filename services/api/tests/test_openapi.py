"""The OpenAPI document: complete, with examples that hold, and the same as docs/reference/api.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.api import ApiStarter, RunningApi
from postern_api import errors
from postern_api.fields import Body

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/api.md").read_text()


def bodies(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(endpoint, schema) of every request body."""
    schemas = document["components"]["schemas"]
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]
                if "application/json" not in content:  # a YARA file is text
                    assert content["text/plain"]["example"], path
                    continue
                schema = content["application/json"]["schema"]
                found.append((f"{method} {path}", schemas[schema["$ref"].rpartition("/")[2]]))
    return found


async def test_every_request_body_has_an_example_and_every_endpoint_a_description(api: RunningApi) -> None:
    document = api.api.web.openapi()
    found = bodies(document)
    assert len(found) > 15
    assert [endpoint for endpoint, schema in found if not schema.get("examples")] == []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation.get("description"), (method, path)
            assert operation["tags"], (method, path)
            if path.startswith("/api/v1"):
                assert {"401", "403", "422", "503"} <= operation["responses"].keys(), (method, path)
                assert operation["security"], (method, path)


async def test_the_examples_are_accepted(start_api: ApiStarter) -> None:
    api = await start_api()
    document = api.api.web.openapi()
    for endpoint, schema in bodies(document):
        method, path = endpoint.split()
        if method != "post" or path.removeprefix("/api/v1/").split("/")[0] in ("queue", "quarantine", "screening"):
            continue
        for example in schema["examples"]:
            # a noun below a user's: of the one whom the examples have made
            answer = await api.client.post(path.removeprefix("/api/v1").replace("{name}", "alice"), json=example)
            assert answer.status_code in (201, 202), (endpoint, example, answer.text)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def models(base: type[Body] = Body) -> Iterator[type[Body]]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


async def test_every_answer_with_a_body_has_an_example_and_every_endpoint_a_summary(api: RunningApi) -> None:
    document = api.api.web.openapi()
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert len({"200", "201", "204"} & operation["responses"].keys()) == 1, (method, path)
        for status in {"200", "201"} & operation["responses"].keys():
            schema = operation["responses"][status]["content"].get("application/json", {}).get("schema")
            if schema is None:
                assert path.endswith(("/raw", "/w3c", "/metrics", "/yara/{name}"))
                continue
            reference = schema.get("$ref") or schema["items"]["$ref"]
            assert document["components"]["schemas"][reference.rpartition("/")[2]].get("examples"), (method, path)


def test_every_example_is_valid_for_its_own_schema() -> None:
    seen = 0
    for model in models():
        extra: Any = model.model_config.get("json_schema_extra") or {}
        for example in extra.get("examples", []):
            model.model_validate_json(json.dumps(example))
            seen += 1
    assert seen > 40


async def test_the_page_names_every_endpoint_and_no_other(api: RunningApi) -> None:
    inside = {f"{method} {path}" for method, path, _ in operations(api.api.web.openapi())}
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /\S+)`", PAGE))
    assert named == inside


def error_names() -> set[str]:
    """Every stable name of an error that stands in the code."""
    source = "\n".join(file.read_text() for file in Path(errors.__file__).parent.rglob("*.py"))
    made = r'(?:InvalidError|UnauthenticatedError|ForbiddenError|ConflictError|OutdatedError|TooLargeError|UnavailableError)\(\s*"(\w+)"'
    rendered = r'answer\(\s*\d+,\s*"(\w+)"'
    statuses = r"names = \{([^}]*)\}"
    found = (
        set(re.findall(made, source))
        | set(re.findall(rendered, source))
        | set(re.findall(r': "(\w+)"', re.findall(statuses, source)[0]))
    )
    found |= {f"{noun.replace(' ', '_')}_not_found" for noun in re.findall(r'NotFoundError\(\s*"([\w ]+)"', source)}
    return found | {f"{noun}_exists" for noun in re.findall(r'_unique\("(\w+)"', source)}


@pytest.mark.parametrize("name", sorted(error_names()))
def test_the_page_names_every_error(name: str) -> None:
    assert f"`{name}`" in PAGE
