"""Tables in Markdown."""

from collections.abc import Sequence


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    rule = "|---|" + "--:|" * (len(head) - 1)
    return "\n".join([_row(head), rule, *(_row(line) for line in lines)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
