"""Inflating alone: message by message, stream by stream, and never more than is allowed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

from trio_wsprim.transports._inflate import Inflater, InflatingDeflate, InflatingServerFactory, TooLarge

TAIL = b"\x00\x00\xff\xff"


def deflated(data: bytes, compressor: zlib._Compress | None = None) -> bytes:
    compressor = compressor or zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def agreed(*params: tuple[str, str | None]) -> InflatingDeflate:
    """What a server agrees to when a client offers that."""
    _, extension = InflatingServerFactory().process_request_params(list(params), [])
    assert isinstance(extension, InflatingDeflate)
    return extension


# --- an inflater ---


@pytest.mark.parametrize("size", [0, 1, 1000, 1_000_000])
def test_without_a_limit_all_comes_out(size: int) -> None:
    inflater = Inflater(15, keeps_context=True)
    inflater.begin()
    assert inflater.inflate(deflated(b"x" * size), is_last=True, most=None) == b"x" * size


@given(data=st.binary(max_size=300).map(lambda each: each * 3), missing=st.integers(0, 3))
def test_just_the_limit_comes_out_and_not_a_byte_more(data: bytes, missing: int) -> None:
    inflater = Inflater(15, keeps_context=True)
    inflater.begin()
    most = len(data) - missing
    if missing and data:
        with pytest.raises(TooLarge):
            inflater.inflate(deflated(data), is_last=True, most=most)
    else:
        assert inflater.inflate(deflated(data), is_last=True, most=len(data)) == data


@given(messages=st.lists(st.binary(max_size=100), max_size=5), keeps=st.booleans(), cut=st.integers(0, 50))
def test_one_message_after_the_other_comes_out(messages: list[bytes], keeps: bool, cut: int) -> None:
    inflater, compressor = Inflater(15, keeps_context=keeps), zlib.compressobj(wbits=-15)
    for message in messages:
        data = deflated(message, compressor if keeps else None)
        inflater.begin()
        first = inflater.inflate(data[:cut], is_last=False, most=1000)
        assert first + inflater.inflate(data[cut:], is_last=True, most=1000) == message


@given(data=st.binary(max_size=100), is_last=st.booleans())
def test_any_bytes_come_out_as_something_or_as_an_error_of_zlib(data: bytes, is_last: bool) -> None:
    inflater = Inflater(12, keeps_context=True)
    inflater.begin()
    try:
        found = inflater.inflate(data, is_last=is_last, most=10_000)
    except (zlib.error, TooLarge):
        return
    assert len(found) <= 10_000


# --- a server's side of it ---


def test_a_window_that_zlib_has_not_is_declined() -> None:
    with pytest.raises(NegotiationError):
        agreed(("server_max_window_bits", "8"))
    assert agreed(("client_max_window_bits", "8")).name == "permessage-deflate"


def test_offers_are_answered_with_small_windows() -> None:
    answer, _ = InflatingServerFactory().process_request_params([("client_max_window_bits", None)], [])
    assert answer == [("server_max_window_bits", "12"), ("client_max_window_bits", "12")]


def test_a_second_offer_is_declined() -> None:
    with pytest.raises(NegotiationError):
        InflatingServerFactory().process_request_params([], [agreed()])


def test_what_is_not_compressed_passes() -> None:
    extension = agreed()
    for frame in (
        Frame(Opcode.PING, b"?"),
        Frame(Opcode.TEXT, b"plain", fin=False),
        Frame(Opcode.PING, b"?"),
        Frame(Opcode.CONT, b"plain"),
    ):
        assert extension.decode(frame, max_size=3) is frame


def test_fragments_are_inflated_with_the_room_that_is_left_to_each() -> None:
    extension, data = agreed(), deflated(b"x" * 100)
    first = extension.decode(Frame(Opcode.TEXT, data[:-2], fin=False, rsv1=True), max_size=100)
    last = extension.decode(Frame(Opcode.CONT, data[-2:]), max_size=100)
    assert bytes(first.data) + bytes(last.data) == b"x" * 100
    assert not first.rsv1
    with pytest.raises(PayloadTooBig):
        extension.decode(Frame(Opcode.TEXT, data, rsv1=True), max_size=50)


@pytest.mark.parametrize("is_bit_again", [True, False])
def test_what_breaks_the_rules_is_a_protocol_error(is_bit_again: bool) -> None:
    extension = agreed()
    extension.decode(Frame(Opcode.TEXT, deflated(b"x"), fin=False, rsv1=True), max_size=100)
    with pytest.raises(ProtocolError):
        extension.decode(Frame(Opcode.CONT, b"\xff\xff\xff", rsv1=is_bit_again), max_size=100)
