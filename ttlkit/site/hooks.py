"""What MkDocs calls while it builds: pages that are HTML already go through as they are, with their contents list."""

import re
from typing import Any

from mkdocs.structure.toc import get_toc


def on_page_markdown(markdown: str, page, **_) -> str:
    """Keep a page's own HTML from Markdown."""
    if not page.meta.get("html"):
        return markdown
    page.own = markdown
    return ""


def on_page_content(html: str, page, **_) -> str:
    """The page's own HTML, if it has some, and its headings up to the third level for the list at the side."""
    own = getattr(page, "own", None)
    if own is None:
        return html
    tokens: list[Any] = []
    for level, name, text in re.findall(r'<h([1-3]) id="([^"]*)">(.*?)</h\1>', own, re.DOTALL):
        token = {"level": int(level), "id": name, "name": re.sub(r"<[^>]*>", "", text), "children": []}
        place = tokens
        while place and place[-1]["level"] < token["level"]:
            place = place[-1]["children"]
        place.append(token)
    page.toc = get_toc(tokens)
    return own


def on_post_page(output: str, **_) -> str:
    """The theme's search dialog has no name for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
