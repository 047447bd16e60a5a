"""The lane cuts bytes into messages and frames, and knows from a header alone what can come to no good."""

import mmap
import sys
import tracemalloc
from pathlib import Path
from typing import TypeAlias

import pytest

from trio_wsprim._frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from trio_wsprim._lane import FrameDecoder, OtherFrame, TooBig, with_slack
from trio_wsprim._values import Message
from trio_wsprim.testing import encode_frame as frame

Found: TypeAlias = OtherFrame | TooBig | None


def decode_once(data: bytes, limit: int | None = None) -> tuple[list[Message], Found]:
    decoder, messages = FrameDecoder(limit), list[Message]()
    decoder.feed(data)
    return messages, decoder.decode(messages)


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


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\x81\x7e\x00\x7d" + b"x" * 125, id="2 bytes for a length of 125"),
        pytest.param(b"\x82\x7e\x00\x00" + b"x" * 125, id="2 bytes for a length of 0"),
        pytest.param(b"\x82\x7f" + (2**16 - 1).to_bytes(8) + bytes(2**16 - 1), id="8 bytes for less than 2**16"),
        pytest.param(b"\x82\x7f" + (5).to_bytes(8) + b"x" * 5, id="8 bytes for a length of 5"),
        pytest.param(frame(TEXT, b"long enough", masked=True), id="masked"),
        pytest.param(frame(BINARY, b"long enough", rsv=2), id="RSV2"),
        pytest.param(frame(3, b"long enough"), id="reserved opcode"),
        pytest.param(frame(CONTINUATION, b"long enough"), id="continuation of nothing"),
    ],
)
@pytest.mark.parametrize("has_lane", [True, False])
def test_a_header_that_breaks_the_rules_does_so_also_if_all_of_its_frame_is_there(bad: bytes, has_lane: bool) -> None:
    data = bad + frame(TEXT, b"late") + frame(PING, b"late")
    decoder, messages = FrameDecoder(None, has_lane=has_lane), list[Message]()
    decoder.feed(data)
    assert decoder.decode(messages) == OtherFrame(bad[0] & 0x0F, data, malformed=True)
    assert messages == []
    assert decoder.decode(messages) is None


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 10, 1000, 2**15 + 1, 2**16])
def test_no_message_comes_inside_another(size: int, opcode: int) -> None:
    begin, inner = frame(TEXT, b"begun", fin=False), frame(opcode, b"x" * size)
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(begin + inner + frame(CONTINUATION, b"never"))
    assert decoder.decode(messages) == OtherFrame(TEXT, begin, payload=b"begun")
    found = decoder.decode(messages)
    assert isinstance(found, OtherFrame)
    assert found.malformed
    assert messages == []


def test_a_frame_that_drips_in_costs_neither_an_object_for_each_byte_nor_a_copy() -> None:
    decoder = FrameDecoder(None)
    decoder.feed(frame(BINARY, bytes(10_000), fin=False)[:5])
    decoder.decode([])
    copies = set[int]()
    for _ in range(9_000):
        decoder.feed(b"\0")
        decoder.decode([])
        copies.add(len(decoder._buffer))
        assert len(decoder._parts) <= 1024
    assert len(copies) < 20


def test_a_decoder_is_empty_when_it_can_say_nothing_more() -> None:
    decoder = FrameDecoder(None)
    assert decoder.is_empty
    decoder.feed(frame(TEXT, b"whole") + frame(TEXT, b"torn")[:-1])
    assert not decoder.is_empty
    decoder.decode([])
    assert not decoder.is_empty
    decoder.feed(b"n")
    assert not decoder.is_empty
    decoder.decode([])
    assert decoder.is_empty
    decoder.feed(frame(BINARY, bytes(50_000))[:100])
    decoder.decode([])
    assert not decoder.is_empty
    decoder.feed(bytes(50_004 - 100))
    assert not decoder.is_empty
    decoder.decode([])
    assert decoder.is_empty


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
    decoder, messages = FrameDecoder(10), list[Message]()
    decoder.feed(frame(TEXT, b"first") + b"\x82\x7f" + (2**30).to_bytes(8) + frame(TEXT, b"not a frame"))
    assert decoder.decode(messages) == TooBig("message of at least 1073741824 bytes, at most 10 are allowed")
    assert decoder.decode(messages) is None
    assert messages == ["first"]


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


@pytest.mark.parametrize("limit", [0, 1, 125, 126, 2**15, 2**15 + 1, 2**16 - 1, 2**16, 100_000])
@pytest.mark.parametrize("has_lane", [True, False])
def test_a_limit_holds_to_the_byte_whatever_form_the_length_has(limit: int, has_lane: bool) -> None:
    for opcode in (TEXT, BINARY):
        decoder = FrameDecoder(limit, has_lane=has_lane)
        whole = frame(opcode, b"x" * limit)
        decoder.feed(whole + frame(opcode, b"x" * (limit + 1)))
        messages: list[Message] = []
        found = decoder.decode(messages)
        if not has_lane:
            assert found == OtherFrame(opcode, whole, ends_message=True, payload=b"x" * limit)
            found = decoder.decode(messages)
        else:
            assert messages == ["x" * limit if opcode == TEXT else b"x" * limit]
        assert found == TooBig(f"message of at least {limit + 1} bytes, at most {limit} are allowed")


# --- large messages, into memory of their own ---


def whole_of(room: memoryview | None) -> memoryview:
    assert room is not None
    return room


@pytest.mark.parametrize("size", [2**15 + 1, 2**16 - 1, 2**16, 200_000])
def test_a_large_message_can_be_read_into_memory_that_is_there(size: int) -> None:
    raw = frame(BINARY, b"\xff" * size)
    start = len(raw) - size
    decoder, messages = FrameDecoder(size), list[Message]()
    decoder.feed(raw[: start + 5])
    assert decoder.decode(messages) is None

    room = whole_of(decoder.room())
    assert len(room) == size - 5
    room[:100] = raw[start + 5 : start + 105]
    decoder.filled(100)
    assert decoder.decode(messages) is None
    room = whole_of(decoder.room())
    assert len(room) == size - 105
    room[:] = raw[start + 105 :]
    decoder.filled(len(room))

    assert decoder.room() is None
    assert decoder.decode(messages) is None
    assert messages == [b"\xff" * size]


def test_memory_is_given_only_for_what_is_large_and_known_to_be() -> None:
    decoder = FrameDecoder(None)
    assert decoder.room() is None
    for small in (frame(BINARY, bytes(2**15))[:-1], b"\0" + frame(BINARY, bytes(2**15 + 1), fin=False)[:-1]):
        decoder.feed(small)
        decoder.decode([])
        assert decoder.room() is None


@pytest.mark.parametrize("has_lane", [True, False])
def test_where_the_core_is_to_judge_no_memory_is_given(has_lane: bool) -> None:
    decoder = FrameDecoder(None, compressed=True, has_lane=has_lane)
    decoder.feed(frame(BINARY, bytes(10**5), rsv=4 if has_lane else 0)[:-1])
    assert decoder.decode([]) is None
    assert decoder.room() is None


def test_what_comes_behind_a_large_message_is_not_lost() -> None:
    raw = frame(BINARY, bytes(50_000))
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(frame(TEXT, b"before") + raw[:100])
    decoder.decode(messages)
    decoder.feed(raw[100:] + frame(TEXT, b"behind") + frame(PING, b""))
    decoder.feed(frame(TEXT, b"last"))
    assert decoder.decode(messages) == OtherFrame(PING, frame(PING, b""))
    assert decoder.decode(messages) is None
    assert messages == ["before", bytes(50_000), "behind", "last"]


def test_both_ways_in_can_take_turns_on_one_message() -> None:
    payload = bytes(range(256)) * 200
    raw = frame(BINARY, payload)
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(raw[:4])
    decoder.decode(messages)
    at = 4
    while (room := decoder.room()) is not None:
        room[:777] = raw[at : at + len(room[:777])]
        decoder.filled(len(room[:777]))
        decoder.feed(raw[at + 777 : at + 2000])
        at += 2000
        decoder.decode(messages)
    assert messages == [payload]


@pytest.mark.parametrize("way", ["fed", "filled"])
def test_large_text_that_is_not_utf_8_is_for_the_core_to_judge(way: str) -> None:
    bad = frame(TEXT, "é".encode() * 20_000 + b"\xc3")
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(frame(TEXT, b"good") + bad[:30_000])
    assert decoder.decode(messages) is None
    if way == "filled":
        room = whole_of(decoder.room())
        room[:] = bad[30_000:]
        decoder.filled(len(room))
        decoder.feed(frame(TEXT, b"late"))
    else:
        decoder.feed(bad[30_000:] + frame(TEXT, b"late"))

    assert decoder.decode(messages) == OtherFrame(TEXT, bad, ends_message=True)
    assert messages == ["good"]


def test_large_text_that_came_in_one_piece_is_judged_the_same() -> None:
    bad = frame(TEXT, b"x" * 70_000 + b"\xff")
    assert decode_once(bad) == ([], OtherFrame(TEXT, bad, ends_message=True))
    assert decode_once(frame(TEXT, "é".encode() * 40_000)) == (["é" * 40_000], None)
    assert decode_once(frame(BINARY, b"\xff" * 70_000)) == ([b"\xff" * 70_000], None)


def test_a_message_stays_as_it_is_when_the_memory_that_it_was_read_into_is_still_held() -> None:
    raw = frame(BINARY, b"a" * 40_000)
    decoder, messages = FrameDecoder(None), list[Message]()
    decoder.feed(raw[:4])
    decoder.decode(messages)
    room = whole_of(decoder.room())
    room[:] = raw[4:]
    decoder.filled(len(room))
    decoder.decode(messages)
    decoder.feed(frame(BINARY, b"b" * 40_000))
    decoder.decode(messages)
    assert messages == [b"a" * 40_000, b"b" * 40_000]


@pytest.mark.parametrize("announced", [2**26 + 1, 2**31, 2**40, 2**63 - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION])
def test_a_huge_length_costs_nothing_before_the_bytes_are_there(opcode: int, announced: int) -> None:
    decoder = FrameDecoder(None)
    if opcode == CONTINUATION:
        decoder.feed(frame(TEXT, b"", fin=False))
        decoder.decode([])
    tracemalloc.start()
    try:
        decoder.feed(bytes([0x80 | opcode, 127]) + announced.to_bytes(8) + bytes(10_000))
        assert decoder.decode([]) is None
        for _ in range(100):
            assert decoder.room() is None
            decoder.feed(bytes(1000))
            assert decoder.decode([]) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 110_000


@pytest.mark.skipif(sys.platform != "linux", reason="the test asks Linux how much memory is in use")
def test_memory_for_a_large_message_is_the_systems_until_bytes_are_there() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    decoder = FrameDecoder(None)
    before = resident()
    decoder.feed(b"\x82\x7f" + (2**26).to_bytes(8) + bytes(1000))
    assert decoder.decode([]) is None
    assert len(whole_of(decoder.room())) == 2**26 - 1000
    assert resident() - before < 2**23


def test_a_limit_is_kept_before_memory_is_given() -> None:
    messages, found = decode_once(b"\x82\x7f" + (2**26).to_bytes(8), limit=2**26 - 1)
    assert (messages, type(found)) == ([], TooBig)


# --- what is not plain ---


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_without_a_lane_each_frame_is_for_the_core(opcode: int) -> None:
    raws = [frame(opcode, b"one"), frame(PING, b"?"), frame(opcode, b""), frame(opcode, b"x" * 70_000)]
    decoder, messages = FrameDecoder(None, has_lane=False), list[Message]()
    for byte in raws[0]:
        decoder.feed(bytes([byte]))
    decoder.feed(b"".join(raws[1:]))

    found = [decoder.decode(messages) for _ in raws]

    assert messages == []
    assert found == [
        OtherFrame(opcode, raws[0], ends_message=True, payload=b"one"),
        OtherFrame(PING, raws[1], payload=b"?"),
        OtherFrame(opcode, raws[2], ends_message=True),
        OtherFrame(opcode, raws[3], ends_message=True, payload=b"x" * 70_000),
    ]
    assert decoder.decode(messages) is None


def test_a_compressed_message_is_for_the_core_if_that_was_agreed_on() -> None:
    raw = frame(TEXT, b"deflated", rsv=4)
    decoder, messages = FrameDecoder(None, compressed=True), list[Message]()
    decoder.feed(frame(TEXT, b"plain") + raw + frame(TEXT, b"plain"))
    assert decoder.decode(messages) == OtherFrame(TEXT, raw, ends_message=True, payload=b"deflated")
    assert decoder.decode(messages) is None
    assert messages == ["plain", "plain"]


@pytest.mark.parametrize(
    ("opcode", "rsv"), [(TEXT, 2), (TEXT, 1), (TEXT, 6), (BINARY, 5), (BINARY, 7), (PING, 4), (CLOSE, 4)]
)
def test_compression_frees_no_other_bit_and_no_control_frame(opcode: int, rsv: int) -> None:
    decoder = FrameDecoder(None, compressed=True)
    decoder.feed(frame(opcode, b"", rsv=rsv))
    found = decoder.decode([])
    assert isinstance(found, OtherFrame)
    assert found.malformed


def test_only_the_first_fragment_is_marked_as_compressed() -> None:
    decoder = FrameDecoder(None, compressed=True)
    decoder.feed(frame(TEXT, b"a", fin=False, rsv=4) + frame(CONTINUATION, b"b", rsv=4))
    first, second = decoder.decode([]), decoder.decode([])
    assert isinstance(first, OtherFrame)
    assert isinstance(second, OtherFrame)
    assert (first.malformed, second.malformed) == (False, True)


@pytest.mark.parametrize("limit", [0, 100, 2**16, 10**6])
def test_what_deflate_makes_larger_may_be_a_little_over_the_limit_and_nothing_else_may(limit: int) -> None:
    worst = limit + 5 * (limit // (16 * 1024) + 1)  # as it is, with five bytes for each block
    for size, is_good in ((worst, True), (with_slack(limit), True), (with_slack(limit) + 1, False)):
        decoder = FrameDecoder(limit, compressed=True)
        decoder.feed(frame(BINARY, bytes(size), rsv=4))
        assert isinstance(decoder.decode([]), OtherFrame) == is_good
    for size in (limit, limit + 1):
        decoder, messages = FrameDecoder(limit, compressed=True), list[Message]()
        decoder.feed(frame(BINARY, bytes(size)))
        assert (decoder.decode(messages) is None) == (messages == [bytes(size)]) == (size == limit)
    decoder = FrameDecoder(None, compressed=True)
    decoder.feed(b"\xc2\x7f" + (2**63 - 1).to_bytes(8))
    assert decoder.decode([]) is None
