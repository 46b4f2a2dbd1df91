"""Reads what an ACME server answers: problem documents, retry times, and the parts of JSON that may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from sdlb.adapters.hook_program import printable
from sdlb.adapters.http_client import read_start
from sdlb.core.certificates import LIMITED, OUTAGE, REFUSED
from sdlb.seams.acme import AcmeFailed

BODY_BYTES_MAX = 1 << 20
ERROR = "urn:ietf:params:acme:error:"
TEXT_CHARS_MAX = 400


async def read(answer: httpx.Response) -> None:
    content = await read_start(answer.aiter_bytes(), BODY_BYTES_MAX + 1)
    if len(content) > BODY_BYTES_MAX:
        raise AcmeFailed(OUTAGE, f"{host(str(answer.url))} sent more than {BODY_BYTES_MAX} bytes")
    answer._content = content  # pyright: ignore[reportPrivateUsage]


def data(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise AcmeFailed(OUTAGE, f"{host(str(answer.url))} did not answer with JSON", status=answer.status_code)
    return cast("dict[str, Any]", found)


def meta(directory: Mapping[str, Any]) -> dict[str, Any]:
    found: Any = directory.get("meta")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def items(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast("dict[str, Any]", each) for each in cast("list[object]", value) if isinstance(each, dict)]


def failure(answer: httpx.Response, url: str, wall_s: float) -> AcmeFailed:
    """By the problem document and the status (RFC 8555, section 6.7)."""
    try:
        found: Any = answer.json()
    except ValueError:
        found = None
    kind, problem, said = REFUSED, "", ""
    if isinstance(found, dict):
        document = cast("dict[str, Any]", found)
        problem = str(document.get("type", "")).removeprefix(ERROR)
        said = words(document)
    status = answer.status_code
    if status == 429 or problem == "rateLimited":
        kind = LIMITED
    elif status >= 500 or problem == "serverInternal" or 300 <= status < 400 or not isinstance(found, dict):
        kind = OUTAGE
    text = f"{host(url)} answered {status}{f': {said}' if said else ''}"
    return AcmeFailed(kind, text, retry_after_s=retry_after(answer, wall_s), problem=problem, status=status)


def words(problem: object) -> str:
    """What a problem document says, with those of its parts."""
    if not isinstance(problem, dict):
        return ""
    document = cast("dict[str, Any]", problem)
    name = str(document.get("type", "")).removeprefix(ERROR)
    said = str(document.get("detail") or "")
    parts = [said or name, *(words(each) for each in items(document.get("subproblems")))]
    return printable("; ".join(filter(None, parts)))[:TEXT_CHARS_MAX]


def retry_after(answer: httpx.Response, wall_s: float) -> float | None:
    """In seconds or as a date (RFC 9110, section 10.2.3)."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, at.timestamp() - wall_s)


def host(url: str) -> str:
    return httpx.URL(url).netloc.decode("ascii", "replace") or url[:100]


def time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
