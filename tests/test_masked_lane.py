"""What a client sends is masked, and the lane finds behind its masks what it finds in bare frames."""

from __future__ import annotations

import os
from itertools import cycle, pairwise
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.roles import Swap
from trio_wsprim._frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame
from trio_wsprim._lane import FrameDecoder, OtherFrame, TooBig
from trio_wsprim._values import Message
from trio_wsprim.testing import encode_frame as any_frame

Found: TypeAlias = Message | OtherFrame | TooBig
SIZES = [0, 1, 2, 3, 4, 124, 125, 126, 127, 1000, 2**15, 2**15 + 1, 2**16 - 1, 2**16, 200_000]


def masked(opcode: int, payload: bytes, key: bytes | None = None) -> bytes:
    return encode_frame(opcode, payload, os.urandom(4) if key is None else key)


def pattern(size: int) -> bytes:
    return Random(size).randbytes(size)


def find(*pieces: bytes, limit: int | None = None, has_lane: bool = True, into: tuple[bool, ...] = ()) -> list[Found]:
    """All that a server's lane finds, up to what ends the connection.

    Args:
        into: Which reads go into the memory that the lane gives, over and over.
    """
    decoder, found = FrameDecoder(limit, has_lane=has_lane, masked=True), list[Found]()
    for piece, goes_into in zip(pieces, cycle(into or (False,)), strict=False):
        rest = memoryview(piece)
        while rest:
            room = decoder.room() if goes_into else None
            if room is None:
                decoder.feed(bytes(rest))
                rest = rest[len(rest) :]
            else:
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
                decoder.filled(size)
                rest = rest[size:]
            if take_all(decoder, found):
                return found
    return found


def take_all(decoder: FrameDecoder, found: list[Found]) -> bool:
    while True:
        messages: list[Message] = []
        other = decoder.decode(messages)
        found += messages
        if other is None:
            return False
        found.append(other)
        if isinstance(other, TooBig) or other.malformed:
            return True


# --- messages ---


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_all_sizes_lose_their_masks(size: int) -> None:
    text = "é€x" * (size // 6) + "x" * (size % 6)
    assert len(text.encode()) == size
    frames = masked(BINARY, pattern(size)), masked(TEXT, text.encode())
    expected: list[Found] = [pattern(size), text]
    assert find(*frames) == find(b"".join(frames)) == expected
    assert find(frames[0] + frames[1][:7], frames[1][7:]) == expected
    assert find(frames[0][:-1], frames[0][-1:] + frames[1]) == expected


@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x81\x80\x81\x80", b"\0\0\0\1"])
def test_any_mask_will_do(key: bytes) -> None:
    data = b"".join(masked(BINARY, pattern(size), key) for size in range(140))
    assert find(data) == [pattern(size) for size in range(140)]


def test_a_frame_byte_by_byte_is_the_same_frame() -> None:
    for size in (0, 1, 126, 300):
        data = masked(BINARY, pattern(size))
        assert find(*[data[at : at + 1] for at in range(len(data))]) == [pattern(size)]


@pytest.mark.parametrize("size", [5, 126, 2**16, 70_000])
def test_a_header_may_be_cut_anywhere_in_length_and_mask(size: int) -> None:
    data = masked(TEXT, b"first") + masked(BINARY, pattern(size)) + masked(TEXT, b"last")
    for cut in range(len("first") + 6, len("first") + 6 + 16):
        for into in ((True,), (False,), (False, True)):
            assert find(data[:cut], data[cut:], into=into) == ["first", pattern(size), "last"]


@pytest.mark.parametrize("into", [True, False])
def test_a_large_message_that_comes_in_many_reads_is_unmasked_as_one(into: bool) -> None:
    data = masked(BINARY, pattern(200_001)) + masked(TEXT, b"last")
    pieces = [data[at : at + 9_999] for at in range(0, len(data), 9_999)]
    assert find(*pieces, into=(into,)) == [pattern(200_001), "last"]


def test_a_run_of_messages_ends_at_what_is_none() -> None:
    ping = masked(PING, b"?")
    data = masked(TEXT, b"one") + masked(BINARY, b"two") + ping + masked(TEXT, b"three")
    assert find(data) == ["one", b"two", OtherFrame(PING, ping, payload=b"?"), "three"]


def test_an_other_frame_is_raw_for_the_core_and_bare_for_us() -> None:
    frames = [
        masked(PONG, b"pong"),
        any_frame(TEXT, b"a", fin=False, masked=True),
        masked(CONTINUATION, b"b"),
        masked(CLOSE, b"\x03\xe8bye"),
    ]
    found = find(b"".join(frames))
    assert [each.raw for each in found if isinstance(each, OtherFrame)] == frames
    assert [each.payload for each in found if isinstance(each, OtherFrame)] == [b"pong", b"a", b"b", b"\x03\xe8bye"]


# --- faults ---


@pytest.mark.parametrize("size", [3, 200, 40_000])
def test_text_that_is_not_utf_8_is_for_the_core_as_it_came(size: int) -> None:
    good, bad = masked(TEXT, b"good"), masked(TEXT, b"x" * size + b"\xff")
    for cut in (1, 6, len(bad) - 1, len(bad)):
        assert find(good + bad[:cut], bad[cut:] + good) == [
            "good",
            OtherFrame(TEXT, bad, ends_message=True),
            "good",
        ]


def test_a_message_whose_mask_only_looks_like_utf_8_is_judged_without_it() -> None:
    key = b"\x80\x80\x80\x80"
    assert find(encode_frame(TEXT, b"\xe1\xe2", key))[0] == OtherFrame(
        TEXT, encode_frame(TEXT, b"\xe1\xe2", key), ends_message=True
    )
    assert find(encode_frame(TEXT, b"ab", key)) == ["ab"]


@pytest.mark.parametrize("has_lane", [True, False])
@pytest.mark.parametrize(
    "bare",
    [
        any_frame(TEXT, b""),
        any_frame(TEXT, b"x" * 50),
        any_frame(BINARY, b"x" * 300),
        any_frame(BINARY, b"x" * 70_000)[:20],
        any_frame(PING, b"?"),
        any_frame(CLOSE, b"\x03\xe8"),
        b"\x81\x00",
        b"\x82\x7e",
        b"\x82\x7f",
        b"\x82\x7d",
    ],
)
def test_a_frame_without_a_mask_is_malformed_whatever_it_is(bare: bytes, has_lane: bool) -> None:
    decoder, messages = FrameDecoder(None, has_lane=has_lane, masked=True), list[Message]()
    decoder.feed(bare)
    assert decoder.decode(messages) == OtherFrame(bare[0] & 15, bare, malformed=True)
    assert not messages
    behind = find(masked(TEXT, b"good") + bare)
    assert behind[0] == "good"
    assert isinstance(behind[1], OtherFrame)
    assert behind[1].malformed


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\xc1\x80", id="RSV1"),
        pytest.param(b"\xa1\x80", id="RSV2"),
        pytest.param(b"\x91\x80", id="RSV3"),
        pytest.param(b"\x83\x80", id="reserved data opcode"),
        pytest.param(b"\x8b\x80", id="reserved control opcode"),
        pytest.param(b"\x09\x80", id="fragmented ping"),
        pytest.param(b"\x89\xfe", id="ping of more than 125 bytes"),
        pytest.param(b"\x88\xff", id="close of more than 125 bytes"),
        pytest.param(b"\x80\x80", id="continuation of nothing"),
        pytest.param(b"\x82\xfe\x00\x7d", id="2 bytes for a length of 125"),
        pytest.param(b"\x82\xff" + (2**16 - 1).to_bytes(8), id="8 bytes for a length of 2**16 - 1"),
        pytest.param(b"\x82\xff" + (2**63).to_bytes(8), id="a length of 2**63"),
        pytest.param(b"\x82\xff" + (2**64 - 1).to_bytes(8), id="a length of 2**64 - 1"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"k", b"key!", b"key!" + bytes(200)])
def test_a_header_that_breaks_the_rules_is_known_without_mask_or_payload(header: bytes, behind: bytes) -> None:
    (found,) = find(header + behind)
    assert isinstance(found, OtherFrame)
    assert found.malformed
    (found,) = find(*[bytes([byte]) for byte in header + behind])
    assert isinstance(found, OtherFrame)
    assert found.malformed


@pytest.mark.parametrize("size", [101, 200, 2**16, 2**40, 2**63 - 1])
def test_a_message_over_the_limit_is_known_before_its_mask(size: int) -> None:
    header = any_frame(BINARY, b"x" * size, masked=True)[:4] if size < 2**16 else b"\x82\xff" + size.to_bytes(8)
    if size < 126:
        header = header[:2]
    for data in (header, header + b"key!", header + b"key!" + bytes(10)):
        assert find(masked(BINARY, bytes(100)) + data, limit=100) == [
            bytes(100),
            TooBig(f"message of at least {size} bytes, at most 100 are allowed"),
        ]


def test_what_is_only_announced_takes_no_memory() -> None:
    decoder = FrameDecoder(None, masked=True)
    decoder.feed(b"\x82\xff" + (2**50).to_bytes(8) + b"key!" + b"x" * 100)
    assert decoder.decode([]) is None
    assert decoder.room() is None
    decoder.feed(b"\x82")
    assert decoder.decode([]) is None


# --- laws ---

sizes = st.integers(0, 300) | st.sampled_from([125, 126, 2**15, 2**15 + 1, 2**16])
payloads = st.binary(max_size=20) | sizes.map(pattern) | st.text(max_size=10).map(str.encode)
frames = st.one_of(
    st.builds(any_frame, st.sampled_from([TEXT, BINARY]), payloads),
    st.builds(any_frame, st.sampled_from([TEXT, BINARY]), payloads),
    st.builds(any_frame, st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125)),
    st.builds(any_frame, st.sampled_from([TEXT, CONTINUATION]), payloads, fin=st.booleans()),
    st.builds(any_frame, st.integers(0, 15), payloads, rsv=st.integers(0, 7), masked=st.booleans()),
)
streams = st.lists(frames, max_size=6).map(b"".join) | st.binary(max_size=30)
cuts = st.lists(st.integers(0, 1000), max_size=12)


def split(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if begin < end]


def bare(data: bytes, limit: int | None) -> list[Found]:
    """All that a client's lane finds in bare frames."""
    decoder, found = FrameDecoder(limit), list[Found]()
    decoder.feed(data)
    take_all(decoder, found)
    return found


def told(found: list[Found]) -> list[object]:
    """The same without what differs: how it came, and how much of it."""
    return [
        (each.opcode, each.payload, each.malformed, each.ends_message) if isinstance(each, OtherFrame) else each
        for each in found
    ]


@given(data=streams, places=cuts, into=st.lists(st.booleans(), max_size=4), limit=st.sampled_from([None, 300, 20]))
@example(data=any_frame(BINARY, bytes(70_000)), places=[5, 20, 60_000], into=[True], limit=None)
@example(data=any_frame(TEXT, b"\xff" * 40_000), places=[7, 100], into=[False, True], limit=None)
def test_behind_masks_the_lane_finds_what_it_finds_in_bare_frames(
    data: bytes, places: list[int], into: list[bool], limit: int | None
) -> None:
    pieces = split(Swap()(data), places)
    assert told(find(*pieces, limit=limit, into=tuple(into))) == told(bare(data, limit))


@given(data=streams, places=cuts, others=cuts)
def test_how_frames_are_cut_is_nothing_to_who_swaps_them(data: bytes, places: list[int], others: list[int]) -> None:
    one, other = Swap(), Swap()
    swapped = b"".join(map(one, split(data, places)))
    assert swapped == b"".join(map(other, split(data, others)))


@given(data=st.lists(st.builds(any_frame, st.integers(0, 15), payloads), max_size=6).map(b"".join))
def test_what_is_swapped_twice_is_the_same(data: bytes) -> None:
    assert Swap()(Swap()(data)) == data
