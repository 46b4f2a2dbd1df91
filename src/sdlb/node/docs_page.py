"""The page at /docs: the local API's OpenAPI document as a web page without scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from sdlb.node import openapi
from sdlb.node.problems import CODES

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:64em;margin:2em auto;padding:0 1em}code{font-size:.9em}"
    "table{border-collapse:collapse}td{padding:.3em 1em .3em 0;vertical-align:top;border-top:1px solid #ddd}"
)


def page(node: str) -> str:
    document = openapi.document()
    calls = "".join(
        _call(method.upper(), path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    shapes = "".join(_shape(name, shape) for name, shape in document["components"]["schemas"].items())
    codes = "".join(
        f"<tr><td><code>{code}</code></td><td>{status}</td><td>{_marked(meaning)}</td></tr>"
        for code, (status, meaning) in CODES.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>sdlb local API</title><style>{STYLE}</style>"
        f"<h1>The local API of {escape(node)}</h1>"
        "<p>As an OpenAPI document: <a href=/openapi.json>/openapi.json</a>. From a shell: "
        "<code>curl --unix-socket $SDLB_SOCKET http://localhost/v1/tree</code></p>"
        f"<table>{calls}</table><h2>Schemas</h2><table>{shapes}</table><h2>Problems</h2><table>{codes}</table>"
    )


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _call(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = [_marked(operation["summary"])]
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            lines.append(f"<code>?{parameter['name']}=</code> {_marked(parameter.get('description', ''))}")
    if "requestBody" in operation:
        lines.append(f"takes {_content(operation['requestBody'])}")
    lines.append(f"answers {_content(operation['responses']['200'])}")
    return f"<tr><td><code>{method} {escape(path)}</code></td><td>{'<br>'.join(lines)}</td></tr>"


def _content(message: Mapping[str, Any]) -> str:
    return " or ".join(
        _type(content["schema"]) if media == "application/json" else f"<code>{media}</code>"
        for media, content in message["content"].items()
    )


def _shape(name: str, shape: Mapping[str, Any]) -> str:
    required = shape.get("required", ())
    keys = [
        f"<code>{key}</code>: {_type(what)}{'' if key in required or not required else _default(what)}"
        for key, what in shape.get("properties", {}).items()
    ]
    description = [_marked(shape["description"])] if "description" in shape else []
    return f"<tr id={name}><td><code>{name}</code></td><td>{'<br>'.join([*description, *keys])}</td></tr>"


def _default(what: Mapping[str, Any]) -> str:
    return (
        f" (<code>{escape(repr(what['default']))}</code>)" if what.get("default") not in (None, "") else " (optional)"
    )


def _type(what: Mapping[str, Any]) -> str:
    """A schema in words: "list of string", "Instance" as a link."""
    if "$ref" in what:
        name = what["$ref"].rpartition("/")[2]
        return f"<a href=#{name}>{name}</a>"
    if "anyOf" in what:
        return " or ".join(_type(each) for each in what["anyOf"])
    if "enum" in what:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in what["enum"])
    kind = what.get("type")
    if kind == "array":
        return f"list of {_type(what.get('items', {}))}"
    if kind == "object" and isinstance(what.get("additionalProperties"), dict):
        return f"object of {_type(what['additionalProperties'])}"
    return str(kind or "any")
