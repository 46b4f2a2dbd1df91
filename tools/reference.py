"""Writes the tables of docs/reference from the code: `make reference`. `--check`, a part of `make lint`: fails if they are not current.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`. Everything else in the pages is written by hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from sdlb.cli.app import COMMANDS
from sdlb.cli.args import Parser
from sdlb.model.event_texts import SECTIONS
from sdlb.model.policy import Policy
from sdlb.model.policy_texts import GATES, SETTINGS
from sdlb.model.reason_texts import REASONS
from sdlb.model.version import NAME_CHARS_MAX
from sdlb.node import config_texts, metric_texts, schema
from sdlb.node.audit import attack_rows, slow_rows
from sdlb.node.audit.checks import CHECKS
from sdlb.node.audit.endpoint_rows import ENDPOINTS, Answer
from sdlb.node.config import LIMITS
from sdlb.node.openapi import document
from sdlb.node.problems import CODES

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs/reference"
OPERATE = (ROOT / "docs/operate/audit.md", ROOT / "docs/operate/attacks.md")
SCHEMA_FILE = "policy.schema.json"
MARKED = re.compile(r"(<!-- generated: (?P<name>[^\n]+?) -->\n).*?(<!-- end -->\n)", re.DOTALL)
SHOWN_COMMANDS = tuple(name for name in COMMANDS if name not in ("demo", "sim", "version"))
CALLS_PER_PATH = ("get", "put", "post", "delete")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(head)} |"]
    lines.append("|" + " --- |" * (lines[0].count(" | ") + 1))
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------ commands


def parser_of(command: str) -> argparse.ArgumentParser:
    """`node upgrade`: of the subcommand. Raises KeyError."""
    name, *rest = command.split()
    top = Parser(prog="sdlb")
    importlib.import_module(COMMANDS[name][0]).add_parser(top.add_subparsers(parser_class=Parser))
    found: argparse.ArgumentParser = _children(top)[name]
    for each in rest:
        found = _children(found)[each]
    return found


def _children(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
            return action.choices  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return {}


def options(command: str) -> str:
    rows: list[tuple[str, str]] = []
    for action in parser_of(command)._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            continue
        text = " ".join((action.help or "").split()).replace(" (its fields: docs/reference/cli.md)", "")
        rows.append((_spelled(action), text or "the service" if action.metavar == "SERVICE" else text))
    return table(("option", "meaning"), rows)


def _spelled(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar}`"
    names = ", ".join(f"`{name}`" for name in action.option_strings[:-1])
    last = action.option_strings[-1]
    if action.nargs == 0:
        values = [""]
    elif action.choices is not None:
        values = [str(each) for each in action.choices]
    else:
        values = str(action.metavar or action.dest.upper()).split("|")
    more = "..." if action.nargs == "+" else ""
    shown = f"`{last} {values[0]}{more}`" if values[0] else f"`{last}`"
    return ", ".join([*([names] if names else []), shown, *(f"`{value}`" for value in values[1:])])


# ------------------------------------------------------------------ the local API


def calls() -> str:
    rows: list[tuple[str, str, str, str]] = []
    for path, methods in document()["paths"].items():
        for method in CALLS_PER_PATH:
            if method in methods:
                call: dict[str, Any] = methods[method]
                query = [
                    f"`{each['name']}`: {each['description']}"
                    for each in call.get("parameters", ())
                    if each["in"] == "query"
                ]
                codes = [
                    f"{code} (" + ", ".join(f"`{each}`" for each in answer["description"].split(", ")) + ")"
                    for code, answer in call["responses"].items()
                    if code >= "400" and path.startswith("/v1/")
                ]
                rows.append((f"`{method.upper()} {path}`", call["summary"], "; ".join(query), ", ".join(codes)))
    return table(("call", "what it does", "query parameters", "problems"), rows)


def objects() -> str:
    parts: list[str] = []
    for name, each in sorted(document()["components"]["schemas"].items()):
        if "properties" not in each:
            continue
        required = set(each.get("required", ()))
        rows = [
            (f"`{key}`", _type(value), "" if key in required else f"optional{_default(value)}")
            for key, value in each["properties"].items()
        ]
        text = " ".join(each.get("description", "").split())
        parts.append(f"### {name}\n" + (f"{text}\n\n" if text else "") + table(("key", "type", "note"), rows))
    return "\n".join(parts)


def _default(value: Mapping[str, Any]) -> str:
    if "default" in value:
        return f", default `{json.dumps(value['default'])}`"
    return ", default its defaults" if "$ref" in value else ""


def _type(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "anyOf" in value and "type" not in value:
        return " or ".join(dict.fromkeys(_type(each) for each in value["anyOf"]))
    kind = str(value.get("type", "any"))
    match kind:
        case "array":
            items = value.get("items", {})
            return "list of object" if "discriminator" in items else f"list of {_type(items)}"
        case "object":
            inner = value.get("additionalProperties")
            return f"object of {_type(cast('Mapping[str, Any]', inner))}" if isinstance(inner, dict) else "object"
        case "integer" | "number":
            low, high = value.get("minimum"), value.get("maximum")
            limits = f" from {low:g}" if low is not None else ""
            return kind + limits + (f" to {high:.12g}" if high is not None else "")
        case _:
            return kind


# ------------------------------------------------------------------ policy and node file


def policy() -> str:
    schemas = document()["components"]["schemas"]
    defaults = _flat(Policy().to_data())
    rows: list[tuple[str, str, str, str]] = []
    for key, meaning in SETTINGS.items():
        value = _setting(schemas, key)
        default = defaults.get(key)
        shown = (
            "none"
            if default in ({}, [], None, "")
            else f"`{default}`"
            if isinstance(default, str)
            else _number(default)
        )
        rows.append((f"`{key}`", _type(value).replace("](#", "](api.md#"), shown, meaning))
    return table(("key", "value", "default", "meaning"), rows)


def gates() -> str:
    """The common keys of all gates, then those of each kind."""
    schemas = document()["components"]["schemas"]
    kinds = {
        schemas[name]["properties"]["kind"]["enum"][0]: schemas[name] for name in schemas if name.startswith("Gate")
    }
    rows: list[tuple[str, str, str, str]] = []
    for path, meaning in GATES.items():
        kind, dot, key = path.rpartition(".")
        if path == "kind":
            rows.append(("`kind`", ", ".join(f"`{each}`" for each in kinds), "required", meaning))
            continue
        gate = kinds[kind] if dot else schemas["GateSoak"]
        shown = "required" if key in gate.get("required", ()) else _gate_default(gate["properties"][key])
        rows.append((f"`{kind}`: `{key}`" if dot else f"`{key}`", _type(gate["properties"][key]), shown, meaning))
    return table(("key", "value", "default", "meaning"), rows)


def _gate_default(value: Mapping[str, Any]) -> str:
    if "default" not in value:
        return "all"
    default = value["default"]
    return "none" if default == "" else f"`{default}`" if isinstance(default, str) else _number(default)


def _setting(schemas: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The schema of a key with dots. A value that may be null to mean the default is described without it."""
    value: Mapping[str, Any] = {"$ref": "#/components/schemas/PolicyDocument"}
    for part in key.split("."):
        value = _without_null(value)
        value = schemas[value["$ref"].rpartition("/")[2]]["properties"][part]
    value = _without_null(value)
    return {"type": "object"} if "$ref" in value else value


def _without_null(value: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = value.get("anyOf", ()) if "type" not in value else ()
    if {"type": "null"} not in choices:
        return value
    return next(each for each in choices if each.get("type") != "null")


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
    return found


def _number(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, int | float) else f"`{value}`"


def node_file(section: str) -> str:
    """The keys of a table of the node file; `top`: those outside of tables."""
    rows: list[tuple[str, ...]] = []
    for key, (default, meaning) in config_texts.KEYS.items():
        table_name, _, name = key.partition(".")
        if (table_name if name else "top") != section:
            continue
        if section == "limits":
            low, high = LIMITS[name]
            rows.append((f"`{name}`", default, f"{low} to {high}", meaning))
        else:
            rows.append((f"`{name or key}`", default, meaning))
    head = ("key", "default", "range", "meaning") if section == "limits" else ("key", "default", "meaning")
    return table(head, rows)


def policy_schema() -> str:
    """The JSON Schema of a policy file. Its definition `PolicyDocument` is the schema of one document."""
    schemas = document()["components"]["schemas"]
    names, found = ["PolicyDocument"], dict[str, Any]()
    for name in names:  # grows
        text = json.dumps(schemas[name])
        names += [each for each in re.findall(r"#/components/schemas/(\w+)", text) if each not in names]
        found[name] = json.loads(text.replace("#/components/schemas/", "#/$defs/"))
    policies = {
        "type": "object",
        "propertyNames": {"pattern": schema.POLICY_NAME, "maxLength": NAME_CHARS_MAX},
        "additionalProperties": {"$ref": "#/$defs/PolicyDocument"},
    }
    whole: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policies of sdlb",
        "description": "A file for `sdlb policy apply`: policy documents by service, prefix with a final *, or *.",
        "type": "object",
        "properties": {"policy": policies},
        "required": ["policy"],
        "additionalProperties": False,
        "$defs": {name: found[name] for name in sorted(found)},
    }
    return json.dumps(whole, indent=2) + "\n"


# ------------------------------------------------------------------ codes and metrics


def events() -> str:
    parts = [
        f"## {title}\n"
        + table(
            ("code", "level", "meaning"),
            ((f"`{code}`", ", ".join(each.levels), each.meaning) for code, each in section.items()),
        )
        for title, section in SECTIONS.items()
    ]
    return "\n".join(parts)


def reasons() -> str:
    return table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in REASONS.items()))


def audit_checks() -> str:
    rows = (
        (f"`{name}`", each.what, each.fails or "never", each.warns or "never", each.why)
        for name, each in CHECKS.items()
    )
    return table(("check", "what is checked", "fails when", "warns when", "why it matters"), rows)


def audit_attacks() -> str:
    floods = attack_rows.http2_floods(b"", b"")
    groups: dict[str, list[tuple[str, str]]] = {
        "HTTP/1 framing": [
            (
                f"{each.name}: {_sent(each.raw)}",
                " or ".join(map(str, sorted(each.statuses))) + ", closed, nothing forwarded",
            )
            for each in attack_rows.FRAMING
        ],
        "Names, paths, headers": [
            *((f"path `{path}` on a public node", "400") for path in attack_rows.ENCODED_PATHS),
            *(
                (f"field {_sent(name.encode() + b': ' + value)}", "served without it")
                for name, value in attack_rows.FORGED.items()
            ),
            ("another host than in the TLS handshake", "421"),
        ],
        "HTTP/2": [
            *((name, "the stream is reset or refused, nothing forwarded") for name in attack_rows.HTTP2_HEADS),
            *((f"flood: {name}", "the connection is closed") for name in floods),
        ],
        "TLS": [
            *((f"ClientHello: {name}", "no ServerHello") for name in attack_rows.HELLOS),
            (
                f"ClientHello: {attack_rows.FINITE_FIELD}, when a site has `dhe = true`",
                "a warning if there is a ServerHello",
            ),
        ],
        "Slow clients": [
            (f"{slow_rows.WAITING} half heads at the same time", "another client is served meanwhile"),
            *((f"{each.name}: {_slow(each)}", f"closed after `{each.limit}`") for each in slow_rows.SLOW),
        ],
    }
    endpoints = [(f"{each.name}: {_sent(each.raw + each.later)}", _received(each)) for each in ENDPOINTS]
    parts = [f"**{section}**\n\n{table(('sent', 'expected'), group)}" for section, group in groups.items()]
    parts.append(
        f"**Misbehaving endpoints**\n\n{table(('answered by the canary', 'received by the client'), endpoints)}"
    )
    return "\n".join(parts)


def _slow(row: slow_rows.Slow) -> str:
    pieces = f", then {_sent(row.piece)} every {slow_rows.PAUSE_S:g} s" if row.piece else ""
    return (_sent(row.opens) if row.opens else "nothing") + pieces


def _received(row: Answer) -> str:
    statuses = " or ".join(map(str, sorted(row.statuses)))
    return f"{statuses} without its end, or no response" if row.cut else statuses


def _sent(raw: bytes) -> str:
    text = repr(raw)[2:-1].replace("`", "'")
    return f"`{text if len(text) <= 120 else text[:80] + '...'}`"


def problems() -> str:
    rows = sorted((status, code, meaning) for code, (status, meaning) in CODES.items())
    return table(("code", "status", "meaning"), ((f"`{code}`", str(status), meaning) for status, code, meaning in rows))


def metrics(group: str) -> str:
    families: Mapping[str, metric_texts.MetricText] = getattr(metric_texts, group.upper())
    rows = [
        (f"`{name}{{{','.join(each.labels)}}}`" if each.labels else f"`{name}`", each.kind, each.text)
        for name, each in families.items()
    ]
    return table(("name", "kind", "meaning"), rows)


def engine_counters() -> str:
    rows = [(f"`{name}`", metric_texts.engine_kind(name), text) for name, text in metric_texts.TEXTS.items()]
    return table(("name", "kind", "meaning"), rows)


def generators() -> dict[str, Callable[[], str]]:
    found: dict[str, Callable[[], str]] = {}
    for name in SHOWN_COMMANDS:
        children = [each for each, parser in _children(parser_of(name)).items() if parser.add_help]  # else: reserved
        own = name not in ("policy", "release", "rollout", "route", "tls")
        for command in [*([name] if own else []), *(f"{name} {each}" for each in children)]:
            found[f"options of {command}"] = partial(options, command)
    sections = dict.fromkeys(key.partition(".")[0] if "." in key else "top" for key in config_texts.KEYS)
    found |= {f"node file {section}": partial(node_file, section) for section in sections}
    found |= {f"metrics {group}": partial(metrics, group) for group in ("node", "tree", "certificates", "traffic")}
    return found | {
        "metrics engine": engine_counters,
        "calls": calls,
        "objects": objects,
        "policy": policy,
        "gates": gates,
        "events": events,
        "reasons": reasons,
        "problems": problems,
        "audit checks": audit_checks,
        "audit attacks": audit_attacks,
    }


def filled(page: str, name: str, known: Mapping[str, Callable[[], str]], used: set[str]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found["name"] not in known:
            raise ValueError(f"{name}: there is no table '{found['name']}'; there are: {', '.join(known)}")
        used.add(found["name"])
        return found[1] + known[found["name"]]() + found[3]

    return MARKED.sub(fill, page)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.reference", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a table is out of date")
    args = parser.parse_args()
    known, used, stale = generators(), set[str](), list[str]()
    sources = [*sorted(PAGES.glob("*.md")), *OPERATE]
    pages = {path: filled(path.read_text(), path.name, known, used) for path in sources}
    for path, now in {**pages, PAGES / SCHEMA_FILE: policy_schema()}.items():
        if not path.exists() or now != path.read_text():
            stale.append(str(path.relative_to(ROOT)))
            if not args.check:
                path.write_text(now)
    missing = [name for name in known if name not in used]
    for name in missing:
        print(f"docs/reference: no page has the table '{name}'; add <!-- generated: {name} --> and <!-- end -->")
    if args.check and stale:
        print(f"out of date: {', '.join(stale)}; run: make reference")
    return 1 if missing or (args.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
