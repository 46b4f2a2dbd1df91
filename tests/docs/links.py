"""Links, anchors and headings of a Markdown page, as GitHub and the site read them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

INLINE = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]^][^\]]*\]:\s+(\S+)", re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\s[^>]*?(?:href|src)=\"([^\"]+)\"")
NAMED = re.compile(r"<(?:a|span|div|h\d)\s[^>]*?(?:id|name)=\"([^\"]+)\"")
FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^ *\2 *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)[^`].*?\1")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


def prose(page: str) -> str:
    """Without code, in which neither links nor headings count."""
    return COMMENT.sub("", FENCED.sub("", page))


def links(page: str) -> list[str]:
    text = CODE.sub("", prose(page))
    return [link for pattern in (INLINE, REFERENCE, HTML) for link in pattern.findall(text)]


def anchors(page: str) -> set[str]:
    """A heading that occurs twice gets a number from the second on."""
    seen: Counter[str] = Counter()
    found = set(NAMED.findall(page))
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(page: Path, root: Path) -> list[str]:
    """The links of a page that lead nowhere, and why. Those to other sites are not followed."""
    found: list[str] = []
    for link in links(page.read_text()):
        if SCHEME.match(link):
            continue
        path, _, anchor = link.partition("#")
        if path.startswith("/"):
            found.append(f"{link}: a link inside the project is relative")
            continue
        leads_to = (page.parent / path).resolve() if path else page
        if not leads_to.is_relative_to(root.resolve()):
            found.append(f"{link}: outside of the project")
        elif not leads_to.exists():
            found.append(f"{link}: no such file")
        elif anchor and (leads_to.suffix != ".md" or anchor not in anchors(leads_to.read_text())):
            found.append(f"{link}: no such heading")
    return found
