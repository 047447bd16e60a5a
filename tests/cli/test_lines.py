"""Lines of a pipe and of a keyboard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_wsprim._cli._lines import MAX_LINE, BadLine, LineEditor, LineSplitter

TOO_LONG = BadLine(f"longer than {MAX_LINE} bytes")


@given(text=st.text(alphabet="ab\nü€\r", max_size=40), sizes=st.lists(st.integers(1, 7), max_size=20))
def test_lines_are_the_same_however_they_come(text: str, sizes: list[int]) -> None:
    data, splitter = text.encode(), LineSplitter()
    lines = []
    for size in sizes:
        lines += splitter.feed(data[:size])
        data = data[size:]
    lines += [*splitter.feed(data), *splitter.end()]

    heads = text.split("\n")
    expected = heads if heads[-1] else heads[:-1]
    assert lines == [line.removesuffix("\r") for line in expected]


def test_a_line_of_the_greatest_length_goes_and_one_byte_more_does_not() -> None:
    longest = b"a" * MAX_LINE

    assert LineSplitter().typing(9) == ""
    assert LineSplitter().feed(longest + b"\r\nb\n") == [longest.decode(), "b"]
    assert LineSplitter().feed(longest + b"a\nb\n") == [TOO_LONG, "b"]
    assert LineSplitter().feed(longest + b"aa\nb\n") == [TOO_LONG, "b"]


def test_an_endless_line_takes_no_memory() -> None:
    splitter = LineSplitter()
    for _ in range(40):
        assert splitter.feed(bytes(2**16)) == []

    assert len(splitter._rest) <= MAX_LINE + 1
    assert splitter.end() == [TOO_LONG]
    assert splitter.end() == []


def test_what_is_not_utf_8_is_no_text() -> None:
    assert LineSplitter().feed(b"a\n\xff\nb\n") == ["a", BadLine("not UTF-8"), "b"]


@pytest.mark.parametrize(
    ("keys", "lines", "rest"),
    [
        ("hello\n", ["hello"], ""),
        ("hello\rworld\n\n\r", ["hello", "world"], ""),
        ("helo\x7flo\b\b\n", ["he" + "l"], ""),
        ("\x7f\n", [], ""),
        ("one two \x17three\n", ["one three"], ""),
        ("one\x17\n", [], ""),
        ("gone\x15here", [], "here"),
        ("a\tb\x01\x0e\n", ["a\tb"], ""),
        ("a\x1b[Ab\x1b[1;5Cc\x1bOPd\x1bxe\n", ["abcde"], ""),
        ("ü€\x7f\n", ["ü"], ""),
    ],
)
def test_keys_edit_the_line(keys: str, lines: list[str], rest: str) -> None:
    editor, found = LineEditor(), []
    for byte in keys.encode():
        found += editor.feed(bytes([byte]))

    assert found == lines
    assert editor.typing(99) == rest
    assert not editor.is_done


def test_ctrl_d_ends_the_input_where_nothing_is_typed() -> None:
    editor = LineEditor()
    editor.feed(b"a\x04")
    assert not editor.is_done

    assert editor.feed(b"\n\x04") == ["a"]
    assert editor.is_done
    assert editor.feed(b"b") == []
    assert editor.is_done
    assert editor.end() == ["b"]


def test_what_pretends_to_be_an_escape_sequence_swallows_little() -> None:
    editor = LineEditor()

    assert editor.feed(b"\x1b[" + b"1" * 31 + b"hello\n") == ["hello"]


def test_a_line_that_is_typed_is_bounded_too() -> None:
    editor = LineEditor()

    assert editor.feed(b"a" * (MAX_LINE + 10) + b"\nb\n") == [TOO_LONG, "b"]
