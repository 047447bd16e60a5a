"""Frames are written as others read them, and close frames are read as RFC 6455 has it."""

import pytest

from trio_wsprim._frames import (
    BARE_BINARY_HEADS,
    BARE_TEXT_HEADS,
    BINARY,
    CLOSE,
    PING,
    PONG,
    SMALL_BINARY_HEADS,
    SMALL_TEXT_HEADS,
    TEXT,
    Close,
    encode_close,
    encode_frame,
    encode_head,
    read_close,
)
from trio_wsprim.testing import encode_frame as frame

KIT_MASK = b"\x37\xfa\x21\x3d"  # what the testing kit masks with
SIZES = [0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**16 + 1]


def pattern(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


# --- out ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [None, KIT_MASK])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_frames_are_written_as_others_write_them(opcode: int, size: int, mask: bytes | None) -> None:
    assert encode_frame(opcode, pattern(size), mask) == frame(opcode, pattern(size), masked=mask is not None)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", [True, False])
def test_a_head_is_all_of_a_frame_but_mask_and_payload(size: int, masked: bool) -> None:
    whole = frame(BINARY, pattern(size), masked=masked)
    assert encode_head(BINARY, size, masked=masked) == whole[: len(whole) - size - 4 * masked]


def test_a_client_masks_unless_told_otherwise() -> None:
    assert encode_head(TEXT, 5) == encode_head(TEXT, 5, masked=True)


@pytest.mark.parametrize(("opcode", "heads"), [(TEXT, SMALL_TEXT_HEADS), (BINARY, SMALL_BINARY_HEADS)])
def test_the_heads_made_beforehand_are_those_of_all_small_sizes(opcode: int, heads: tuple[bytes, ...]) -> None:
    assert list(heads) == [encode_head(opcode, size) for size in range(126)]


@pytest.mark.parametrize(("opcode", "heads"), [(TEXT, BARE_TEXT_HEADS), (BINARY, BARE_BINARY_HEADS)])
def test_those_of_a_server_are_made_beforehand_too(opcode: int, heads: tuple[bytes, ...]) -> None:
    assert list(heads) == [encode_head(opcode, size, masked=False) for size in range(126)]


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_are_written_like_any_other(opcode: int) -> None:
    assert encode_frame(opcode, b"?" * 125, KIT_MASK) == frame(opcode, b"?" * 125, masked=True)


def test_a_close_frame_has_a_code_and_a_reason() -> None:
    assert encode_close(1001, "grüß", None) == frame(CLOSE, b"\x03\xe9" + "grüß".encode())
    assert encode_close(4999, "", KIT_MASK) == frame(CLOSE, b"\x13\x87", masked=True)


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 100, "é" * 61),
        ("x" + "é" * 61, "x" + "é" * 61),
        ("€" * 100, "€" * 41),
        ("xx" + "€" * 41, "xx" + "€" * 40),
        ("😀" * 100, "😀" * 30),
    ],
)
def test_a_long_close_reason_is_cut_at_a_character(reason: str, left: str) -> None:
    assert encode_close(1000, reason, None) == frame(CLOSE, b"\x03\xe8" + left.encode())


# --- close frames in ---


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_codes_that_may_be_sent_are_read(code: int) -> None:
    assert read_close(code.to_bytes(2) + "grüß".encode()) == Close(code, "grüß")


def test_a_close_frame_without_a_code_is_1005() -> None:
    assert read_close(b"") == Close(1005, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_codes_that_must_not_be_sent_are_a_breach(code: int) -> None:
    close = read_close(code.to_bytes(2))
    assert (close.code, close.malformed) == (1002, True)
    assert str(code) in close.reason


def test_half_a_code_is_a_breach() -> None:
    assert read_close(b"\x03") == Close(1002, "close frame with half a code", malformed=True)


def test_a_reason_that_is_not_utf_8_is_a_breach_of_its_own_code() -> None:
    close = read_close(b"\x03\xe8\xff")
    assert (close.code, close.malformed) == (1007, True)


def test_a_wrong_code_counts_before_a_reason_that_is_not_utf_8() -> None:
    assert read_close(b"\x03\xed\xff").code == 1002


@pytest.mark.parametrize("reason", ["", "bye", "grüß", "x" * 123])
def test_what_is_written_is_read(reason: str) -> None:
    assert read_close(encode_close(3000, reason, None)[2:]) == Close(3000, reason)
