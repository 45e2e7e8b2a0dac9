"""Shown text is one line, keeps its content, and contains no terminal command."""

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.text import printable


@given(st.text(st.characters()))
def test_what_is_shown_is_printable_and_can_be_written_as_utf8(text):
    """Whatever the text holds, lone surrogates included; a printable text is unchanged."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    assert not text.isprintable() or shown == text


def test_a_character_that_is_not_printable_shows_its_escape():
    """Line breaks, escape sequences of a terminal (CSI, OSC), writing direction, a null byte."""
    assert printable("a\r\nb\u2028c") == r"a\r\nb\u2028c"
    assert printable("\x1b[31m\x1b]0;title\x07\x9b2J") == r"\x1b[31m\x1b]0;title\x07\x9b2J"
    assert printable("\u202egpj.exe\x00\udc80") == r"\u202egpj.exe\x00\udc80"
