"""Parts of a page that a program writes, between marks that stand there for each of them."""

from __future__ import annotations

import re


def put(page: str, mark: str, text: str) -> str:
    """The page with another text between the marks of one part."""
    between = re.compile(rf"(<!-- {mark}: begin -->\n).*?(<!-- {mark}: end -->)", re.DOTALL)
    if not between.search(page):
        raise ValueError(f"The page has no marks for {mark!r}.")
    return between.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)
