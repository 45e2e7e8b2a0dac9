r"""Escaping of text from the API or a user before it is shown in a terminal, a log line or a page.

A line break in a name would add a line to the output. An escape sequence would control the terminal, and a character of
writing direction would change the order of the visible text. JSON escapes these characters itself.

Put here: how such characters are escaped, and how names are sorted. Keep out: HTML and quotation marks, which the
caller adds.
"""

import re


def printable(text: str) -> str:
    r"""Show text as one line: a character that is not printable becomes its escape, such as `\n` or `\x1b`.

    Not printable are, as for `str.isprintable`: control and format characters, line breaks, spaces other than the
    common one, lone surrogates and unassigned characters.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Make a sort key by which `AHU-2` comes before `AHU-10`: whole numbers in a name count as numbers."""
    parts = re.split(r"([0-9]+)", text)
    numbers = [part.lstrip("0") if at % 2 else part for at, part in enumerate(parts)]
    return [(bool(at % 2), len(part) if at % 2 else 0, part) for at, part in enumerate(numbers)] + [(False, 0, text)]
