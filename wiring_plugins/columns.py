"""Plain text in columns, for terminals and for files."""
from __future__ import annotations


def print_columns(head: tuple[str, ...], rows: list[tuple[str, ...]], *, width: int | None = None) -> None:
    """Print rows in columns as wide as they need, one line each; lines longer than `width` characters are cut."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths)).rstrip()
        print(line if width is None or len(line) <= width else f"{line[:width - 1]}…")
