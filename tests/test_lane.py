"""The lane cuts bytes into messages and frames, and knows from a header alone what can come to no good."""

from typing import TypeAlias

import pytest

from trio_wsprim._lane import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Close,
    FrameDecoder,
    OtherFrame,
    TooBig,
    apply_mask,
    encode_close,
    encode_frame,
    encode_message,
    read_close,
)
from trio_wsprim._values import Message
from trio_wsprim.testing import encode_frame as frame

MASK = b"\x01\x02\x03\x04"

Found: TypeAlias = OtherFrame | TooBig | None


def decode_once(data: bytes, limit: int | None = None) -> tuple[list[Message], Found]:
    decoder, messages = FrameDecoder(limit), list[Message]()
    decoder.feed(data)
    return messages, decoder.decode(messages)


# --- out ---


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**16 + 1])
@pytest.mark.parametrize("mask", [None, b"\x37\xfa\x21\x3d"])  # the second is what the testing kit masks with
def test_frames_are_written_as_others_write_them(size: int, mask: bytes | None) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert encode_frame(BINARY, payload, mask) == frame(BINARY, payload, masked=mask is not None)


@pytest.mark.parametrize("size", range(9))
def test_masking_twice_changes_nothing(size: int) -> None:
    payload = bytes(range(size))
    masked = apply_mask(payload, MASK)
    assert masked == bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, MASK) == payload


def test_text_and_bytes_differ_in_their_opcode() -> None:
    assert encode_message("é", None) == frame(TEXT, b"\xc3\xa9")
    assert encode_message(b"\xff", None) == frame(BINARY, b"\xff")


def test_a_long_close_reason_is_cut_at_a_character() -> None:
    assert encode_close(1000, "é" * 100, None) == frame(CLOSE, b"\x03\xe8" + "é".encode() * 61)


# --- in ---


def test_whole_messages_come_out_together_up_to_the_first_other_frame() -> None:
    ping = frame(PING, b"?")
    data = frame(TEXT, b"one") + frame(BINARY, b"two") + ping + frame(TEXT, b"three")
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(data)

    assert decoder.decode(messages) == OtherFrame(PING, ping, payload=b"?")
    assert messages == ["one", b"two"]
    assert decoder.decode(messages) is None
    assert messages == ["one", b"two", "three"]


def test_a_frame_byte_by_byte_is_the_same_frame() -> None:
    decoder, messages = FrameDecoder(None), list[Message]()
    for byte in frame(BINARY, bytes(5000)):
        assert messages == []
        decoder.feed(bytes([byte]))
        assert decoder.decode(messages) is None
    assert messages == [bytes(5000)]


def test_what_is_decoded_is_not_kept() -> None:
    decoder = FrameDecoder(None)
    decoder.feed(frame(BINARY, bytes(100_000)))
    decoder.decode([])
    assert decoder._buffer == b""


def test_fragments_are_for_the_core_and_so_is_what_comes_between_them() -> None:
    raws = [
        frame(TEXT, b"a", fin=False),
        frame(PONG, b""),
        frame(CONTINUATION, b"b", fin=False),
        frame(CONTINUATION, b"c"),
    ]
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(b"".join(raws) + frame(TEXT, b"plain again"))

    found = [decoder.decode(messages) for _ in raws]

    assert [each.raw for each in found if isinstance(each, OtherFrame)] == raws
    assert [each.ends_message for each in found if isinstance(each, OtherFrame)] == [False, False, False, True]
    assert decoder.decode(messages) is None
    assert messages == ["plain again"]


def test_text_that_is_not_utf_8_is_for_the_core_to_judge() -> None:
    bad = frame(TEXT, b"\xff")
    messages, found = decode_once(frame(TEXT, b"good") + bad + frame(TEXT, b"late"))
    assert messages == ["good"]
    assert found == OtherFrame(TEXT, bad, ends_message=True)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\xc1\x00", id="RSV1"),
        pytest.param(b"\xa1\x00", id="RSV2"),
        pytest.param(b"\x91\x00", id="RSV3"),
        pytest.param(b"\x83\x00", id="reserved data opcode"),
        pytest.param(b"\x8b\x00", id="reserved control opcode"),
        pytest.param(b"\x81\x80", id="masked"),
        pytest.param(b"\x09\x00", id="fragmented ping"),
        pytest.param(b"\x08\x00", id="fragmented close"),
        pytest.param(b"\x89\x7e", id="ping of more than 125 bytes"),
        pytest.param(b"\x88\x7f", id="close of more than 125 bytes"),
        pytest.param(b"\x80\x00", id="continuation of nothing"),
        pytest.param(b"\x01\x00\x81\x00", id="text within a text"),
        pytest.param(b"\x01\x00\x02\x00", id="binary fragment within a text"),
        pytest.param(b"\x82\x7e\x00\x7d", id="2 bytes for a length of 125"),
        pytest.param(b"\x82\x7f" + (2**16 - 1).to_bytes(8), id="8 bytes for a length of 2**16 - 1"),
        pytest.param(b"\x82\x7f" + (2**63).to_bytes(8), id="a length of 2**63"),
    ],
)
def test_a_header_that_breaks_the_rules_is_known_without_its_payload(header: bytes) -> None:
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(header)
    found = decoder.decode(messages)
    if header.startswith(b"\x01"):
        found = decoder.decode(messages)
    assert isinstance(found, OtherFrame)
    assert found.malformed
    assert messages == []
    assert decoder.decode(messages) is None


def test_a_length_is_waited_for_to_its_last_byte() -> None:
    decoder = FrameDecoder(10)
    for byte in b"\x82\x7f\0\0\0\0\x40\0\0":
        decoder.feed(bytes([byte]))
        assert decoder.decode([]) is None
    decoder.feed(b"\0")
    assert isinstance(decoder.decode([]), TooBig)


# --- limits ---


def test_a_message_of_just_the_limit_is_taken() -> None:
    assert decode_once(frame(BINARY, bytes(10)), limit=10) == ([bytes(10)], None)
    parts = frame(BINARY, bytes(5), fin=False) + frame(CONTINUATION, bytes(5))
    decoder = FrameDecoder(10)
    decoder.feed(parts + frame(BINARY, bytes(10)))
    assert isinstance(decoder.decode([]), OtherFrame)
    assert isinstance(decoder.decode([]), OtherFrame)
    messages: list[Message] = []
    assert decoder.decode(messages) is None
    assert messages == [bytes(10)]


def test_a_message_over_the_limit_is_known_by_its_header() -> None:
    messages, found = decode_once(frame(TEXT, b"first") + b"\x82\x7f" + (2**30).to_bytes(8), limit=10)
    assert messages == ["first"]
    assert found == TooBig("message of at least 1073741824 bytes, at most 10 are allowed")


def test_text_is_counted_in_bytes() -> None:
    assert isinstance(decode_once(frame(TEXT, "ééé".encode()), limit=5)[1], TooBig)


def test_fragments_are_counted_together_and_control_frames_are_not() -> None:
    decoder = FrameDecoder(10)
    decoder.feed(frame(BINARY, bytes(6), fin=False) + frame(PING, bytes(100)) + b"\x80\x05")
    assert isinstance(decoder.decode([]), OtherFrame)
    assert isinstance(decoder.decode([]), OtherFrame)
    assert decoder.decode([]) == TooBig("message of at least 11 bytes, at most 10 are allowed")


@pytest.mark.parametrize(("limit", "most"), [(10, 4096), (64 * 5000, 5000)])
def test_empty_fragments_have_a_limit_too(limit: int, most: int) -> None:
    decoder = FrameDecoder(limit)
    decoder.feed(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * most)
    for _ in range(most):
        assert isinstance(decoder.decode([]), OtherFrame)
    assert decoder.decode([]) == TooBig(f"message in more than {most} fragments")


def test_without_a_limit_nothing_is_too_big() -> None:
    decoder = FrameDecoder(None)
    decoder.feed(b"\x82\x7f" + (2**40).to_bytes(8))
    assert decoder.decode([]) is None


# --- close frames ---


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
