from collections import deque

import pytest

from trio_wsprim._errors import MessageTooBig
from trio_wsprim._room import Room, batch_size, message_size
from trio_wsprim._values import Buffer, Message


@pytest.mark.parametrize(("message", "size"), [("", 0), (b"", 0), ("abc", 3), (b"\xff\xfe", 2), ("é€😀", 9)])
def test_a_size_is_in_bytes_on_the_wire(message: Message, size: int) -> None:
    assert message_size(message) == size


def test_a_lone_surrogate_has_no_size() -> None:
    with pytest.raises(UnicodeEncodeError):
        message_size("\ud800")


@pytest.mark.parametrize(
    ("messages", "size"),
    [
        ([], 0),
        ([b""], 0),
        (["abc", ""], 3),
        ([b"\xff\xfe", b"a"], 3),
        (["é€😀", "é"], 11),
        (["a", "é", b"bc"], 5),
        ([b"a", "é"], 3),
    ],
)
def test_the_size_of_a_batch_is_that_of_its_messages_together(messages: list[Message], size: int) -> None:
    assert batch_size(messages) == batch_size(deque(messages)) == size == sum(map(message_size, messages))


def test_messages_are_counted_in_and_out_one_by_one_or_many_at_once() -> None:
    room = Room(Buffer(max_messages=5, max_bytes=10))

    room.add(2)
    room.add(8, 4)
    assert (room.messages, room.bytes) == (5, 10)
    assert room.is_full()
    room.remove(7, 3)
    room.remove(1)

    assert (room.messages, room.bytes) == (1, 2)
    assert room.fits(8)
    assert not room.fits(9)


def test_both_limits_hold_at_once() -> None:
    room = Room(Buffer(max_messages=2, max_bytes=10))

    room.add(9)
    assert room.fits(1)
    assert not room.fits(2)
    room.remove(9)
    room.add(0)
    room.add(0)

    assert not room.fits(0)


def test_without_limits_everything_fits() -> None:
    room = Room(Buffer(None, None))

    room.add(10**12)

    assert room.fits(10**12)
    assert not room.is_full()
    room.check_size(10**12)


@pytest.mark.parametrize(
    ("buffer", "sizes"), [(Buffer(2, None), [0, 0]), (Buffer(None, 4), [4]), (Buffer(None, 4), [9])]
)
def test_it_is_full_when_a_limit_is_reached(buffer: Buffer, sizes: list[int]) -> None:
    room = Room(buffer)

    for size in sizes:
        assert not room.is_full()
        room.add(size)

    assert room.is_full()


def test_what_would_not_fit_into_an_empty_buffer_is_refused_and_named() -> None:
    room = Room(Buffer(max_bytes=3))
    room.check_size(3)

    with pytest.raises(MessageTooBig, match="4 bytes is over the limit of 3"):
        room.check_size(4)


def test_the_error_names_the_limit_that_is_reached() -> None:
    room = Room(Buffer(1, 4))

    assert "max_bytes=4" in str(room.error())
    room.add(1)

    assert "max_messages=1" in str(room.error())
