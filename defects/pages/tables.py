"""Write a table as aligned Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def grid(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text; nothing where there are no rows."""
    lines = [" | ".join(row) for row in rows]
    if not lines:
        return ""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(
        [f"## {title}", "", f"| {' | '.join(head)} |", f"| {' | '.join(rule)} |", *(f"| {x} |" for x in lines)]
    )
