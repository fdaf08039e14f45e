"""The OpenAPI document as one page of plain HTML: no script, nothing loaded from anywhere. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE: Final = """
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
code, pre { font-size: 14px; }
h3 { margin-top: 2rem; border-top: 1px solid #ccc; padding-top: 1rem; }
"""


def page(document: dict[str, Any]) -> str:
    """HTML of the whole document, by tag: every endpoint with its parameters, an example of its body, and its answers."""
    info = document["info"]
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}: API</h1><pre>{escape(info['description'].strip())}</pre>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>")
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if tag["name"] in operation["tags"]:
                    parts += _endpoint(document, f"{method.upper()} {path}", operation)
    return "".join((*parts, "</body></html>"))


def _endpoint(document: dict[str, Any], name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h3><code>{escape(name)}</code></h3><p>{escape(operation['description'])}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<ul>"
        for each in parameters:
            text = each.get("description", "")
            yield f"<li><code>{escape(each['name'])}</code> ({escape(each['in'])}) {escape(text)}</li>"
        yield "</ul>"
    if "requestBody" in operation:
        yield _examples(document, operation["requestBody"]["content"])
    yield "<ul>"
    for status, answer in operation["responses"].items():
        shown = _examples(document, answer.get("content", {})) if status.startswith("2") else ""
        yield f"<li>{escape(status)}: {escape(answer['description'])}{shown}</li>"
    yield "</ul>"


def _examples(document: dict[str, Any], content: dict[str, Any]) -> str:
    schema = content.get("application/json", {}).get("schema", {})
    reference = schema.get("$ref") or schema.get("items", {}).get("$ref", "")
    if not reference:
        return ""
    found = document["components"]["schemas"][reference.rpartition("/")[2]].get("examples", [])
    if found and "items" in schema:
        found = [found]  # the answer is a list of such objects
    return "".join(f"<pre>{escape(json.dumps(example, indent=1, ensure_ascii=False))}</pre>" for example in found)
