"""Shown text is one line, keeps its content, and contains no terminal command."""

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.text import natural_key, printable


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


@given(st.lists(st.text(st.sampled_from("ab-0129"), max_size=8)))
def test_the_natural_order_is_one_order_of_all_names(names):
    """It can compare any two names, and two different names have different keys."""
    backwards = list(reversed(names))
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert len({str(natural_key(name)) for name in names}) == len(set(names))


def test_numbers_in_names_count_as_numbers():
    """However long they are, and with zeros before them."""
    names = ["AHU-2", "AHU-10", f"AHU-{'9' * 5000}", "VAV-007", "VAV-07b", "VAV-8"]
    backwards = list(reversed(names))
    assert sorted(backwards, key=natural_key) == names
