"""However a stream of frames is cut into reads, the lane finds the same in it, and the same as wsproto does."""

from itertools import chain, cycle, pairwise, takewhile
from typing import TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from trio_wsprim._frames import CLOSE, CONTINUATION, PING, PONG, encode_frame
from trio_wsprim._lane import FrameDecoder, OtherFrame, TooBig
from trio_wsprim._values import Message
from trio_wsprim.testing import encode_frame as encode_any_frame

Found: TypeAlias = str | bytes | OtherFrame | TooBig

sizes = st.integers(0, 300) | st.sampled_from([125, 126, 2**16 - 1, 2**16])
payloads = st.binary(max_size=40) | sizes.map(bytes) | st.text(max_size=20).map(str.encode)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def whole_messages(draw: st.DrawFn) -> list[bytes]:
    """The frames of one message, or of one control frame; control frames between fragments."""
    if draw(st.booleans()):
        return [encode_any_frame(*draw(controls))]
    opcode = draw(st.sampled_from([1, 2]))
    parts = draw(st.lists(payloads, min_size=1, max_size=4))
    frames: list[bytes] = []
    for number, part in enumerate(parts):
        frames.append(encode_any_frame(opcode if not number else CONTINUATION, part, fin=number == len(parts) - 1))
        if number < len(parts) - 1 and draw(st.booleans()):
            frames.append(encode_any_frame(*draw(controls)))
    return frames


streams = st.lists(whole_messages(), max_size=8).map(lambda groups: b"".join(chain.from_iterable(groups)))
cuts = st.lists(st.integers(0, 2000), max_size=30)

large_payloads = st.builds(
    lambda size, tail: "é".encode() * ((size - len(tail)) // 2) + tail,
    st.sampled_from([2**15 - 1, 2**15, 2**15 + 1, 2**16 - 1, 2**16, 2**16 + 1, 100_000, 200_000]),
    st.sampled_from([b"", b"x", b"\xff", b"\xc3"]),
)
large_frames = st.builds(encode_any_frame, st.sampled_from([1, 2]), large_payloads)
large_streams = st.lists(large_frames | whole_messages().map(b"".join), min_size=1, max_size=5).map(b"".join)
wide_cuts = st.lists(st.integers(0, 500_000), max_size=20)


def split(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def run_lane(pieces: list[bytes], limit: int | None = None, *, has_lane: bool = True) -> list[Found]:
    """Everything that the lane finds, up to the first thing that ends a connection."""
    decoder, found = FrameDecoder(limit, has_lane=has_lane), list[Found]()
    for piece in pieces:
        decoder.feed(piece)
        if take_all(decoder, found):
            break
    return found


def take_all(decoder: FrameDecoder, found: list[Found]) -> bool:
    """Note what the lane finds in what it has; whether that ends the connection."""
    while True:
        messages: list[Message] = []
        frame = decoder.decode(messages)
        found.extend(messages)
        if frame is None:
            return False
        if isinstance(frame, TooBig) or frame.malformed:
            # What came with a wrong header depends on the cut; that it is wrong does not.
            found.append(TooBig(""))
            return True
        found.append(frame)


def read_into_room(data: bytes, places: list[int], into: list[bool], limit: int | None = None) -> list[Found]:
    """The same from reads that go, now and then, into the memory that the lane gives."""
    decoder, found = FrameDecoder(limit), list[Found]()
    for piece, goes_into in zip(split(data, places), cycle(into or [True])):
        rest = piece
        while rest:
            room = decoder.room() if goes_into else None
            if room is None:
                decoder.feed(rest)
                rest = b""
            else:
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
                decoder.filled(size)
                rest = rest[size:]
            if take_all(decoder, found):
                return found
    return found


def judge(data: bytes) -> tuple[list[object], CloseReason | None]:
    """What wsproto finds: messages and control frames, and the code with which it gives up, if it does."""
    protocol, found, parts = FrameProtocol(client=True, extensions=[]), list[object](), list[str | bytes]()
    protocol.receive_bytes(data)
    try:
        for frame in protocol.received_frames():
            if frame.opcode in {Opcode.PING, Opcode.PONG, Opcode.CLOSE}:
                found.append((int(frame.opcode), frame.payload))
                continue
            assert isinstance(frame.payload, str | bytes)
            parts.append(frame.payload)
            if frame.message_finished:
                found.append("".join(map(str, parts)) if isinstance(parts[0], str) else b"".join(parts))  # type: ignore[arg-type]
                parts.clear()
    except ParseFailed as error:
        return found, error.code
    return found, None


def as_judged(found: list[Found]) -> tuple[list[object], CloseReason | None]:
    """The same from the lane's findings: what is for the core goes to wsproto, frame by frame."""
    core, told = FrameProtocol(client=True, extensions=[]), list[object]()
    parts: list[str | bytes] = []
    for each in found:
        if isinstance(each, str | bytes):
            told.append(each)
            continue
        if isinstance(each, TooBig):
            return told, CloseReason.PROTOCOL_ERROR
        core.receive_bytes(each.raw)
        try:
            for frame in core.received_frames():
                if each.opcode >= CLOSE:
                    told.append((each.opcode, frame.payload))
                else:
                    assert isinstance(frame.payload, str | bytes)
                    parts.append(frame.payload)
        except ParseFailed as error:
            return told, error.code
        if each.opcode < CLOSE and each.ends_message:
            told.append("".join(map(str, parts)) if isinstance(parts[0], str) else b"".join(parts))  # type: ignore[arg-type]
            parts.clear()
    return told, None


@given(data=streams, places=cuts)
def test_where_a_stream_is_cut_does_not_matter(data: bytes, places: list[int]) -> None:
    assert run_lane(split(data, places)) == run_lane([data])


@given(data=large_streams, places=wide_cuts | cuts, into=st.lists(st.booleans(), max_size=10))
def test_reading_into_the_memory_that_is_given_changes_nothing(
    data: bytes, places: list[int], into: list[bool]
) -> None:
    expected = run_lane([data])
    assert read_into_room(data, places, into) == expected
    assert run_lane(split(data, places)) == expected


@given(
    sizes=st.lists(st.sampled_from([2**15, 2**15 + 1, 70_000, 70_001]), max_size=5),
    places=wide_cuts,
    into=st.lists(st.booleans(), max_size=10),
    limit=st.sampled_from([2**15, 2**15 + 1, 70_000, 70_001]),
)
def test_a_limit_ends_the_same_messages_however_they_are_read(
    sizes: list[int], places: list[int], into: list[bool], limit: int
) -> None:
    data = b"".join(encode_any_frame(2, bytes(size)) for size in sizes)
    good = [bytes(size) for size in takewhile(lambda size: size <= limit, sizes)]
    expected: list[Found] = [*good, *([TooBig("")] if len(good) < len(sizes) else [])]
    assert read_into_room(data, places, into, limit) == expected
    assert run_lane(split(data, places), limit) == expected


@given(data=streams | large_streams, places=cuts)
def test_without_a_lane_the_same_frames_are_left_to_the_core(data: bytes, places: list[int]) -> None:
    bare = run_lane(split(data, places), has_lane=False)
    assert all(isinstance(each, OtherFrame) for each in bare)
    assert b"".join(each.raw for each in bare if isinstance(each, OtherFrame)) == data


@given(data=streams)
def test_lane_and_core_together_find_what_wsproto_finds_alone(data: bytes) -> None:
    assert as_judged(run_lane([data])) == judge(data)


@given(data=st.binary(max_size=60), places=cuts)
@example(data=b"\x81\x7e\x00\x7d" + bytes(125), places=[1])
def test_garbage_is_the_same_garbage_in_pieces(data: bytes, places: list[int]) -> None:
    assert run_lane(split(data, places), limit=100) == run_lane([data], limit=100)


@given(
    data=streams,
    first=st.integers(0, 255),
    second=st.integers(0, 255),
    rest=st.binary(max_size=20),
)
def test_a_breach_is_one_for_both(data: bytes, first: int, second: int, rest: bytes) -> None:
    _, code = judge(data + bytes([first, second]) + rest)
    found = run_lane([data + bytes([first, second]) + rest])
    mine = as_judged(found)[1]
    # The lane knows from two bytes what wsproto wants to see more of, so it may be the only one; and wsproto reads
    # text within a frame that is not whole yet, so it may be the first.
    is_whole = not any(isinstance(each, TooBig) for each in found)
    if code == CloseReason.PROTOCOL_ERROR or (mine is not None and is_whole):
        assert mine == code


@given(opcode=st.sampled_from([1, 2, 8, 9, 10]), payload=payloads, mask=st.binary(min_size=4, max_size=4))
def test_what_is_encoded_is_what_a_server_reads(opcode: int, payload: bytes, mask: bytes) -> None:
    server = FrameProtocol(client=False, extensions=[])
    body = payload[:125] if opcode >= CLOSE else payload
    body = b"\x03\xe8" if opcode == CLOSE else body.decode(errors="ignore").encode()
    server.receive_bytes(encode_frame(opcode, body, mask))

    frames = list(server.received_frames())

    joined = b"".join(
        each.payload if isinstance(each.payload, bytes) else str(each.payload).encode() for each in frames
    )
    assert {each.opcode for each in frames} == {opcode}
    assert joined == body or opcode == CLOSE
