"""Makes names from packs and protocols safe to show in terminals and files."""

import html
import re

# Control characters, line and paragraph separators, marks that reorder text, and halves of
# surrogate pairs, which stand for the bytes of a file name that are not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """``text`` with every character that could control a terminal replaced by its escape."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def html_text(text: str) -> str:
    """``text`` for the content or a quoted attribute of an HTML or SVG element."""
    return html.escape(plain(text))


def csv_cell(text: str) -> str:
    """``text`` for a CSV cell; one that a spreadsheet would run as a formula gets a leading '."""
    return f"'{plain(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else plain(text)


def markdown_cell(text: str) -> str:
    """``text`` for a cell of a Markdown table."""
    escaped = plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
