import pytest

from trio_wsprim._errors import MessageTooBig
from trio_wsprim._room import Room, message_size
from trio_wsprim._values import Buffer, Message


@pytest.mark.parametrize(("message", "size"), [("", 0), (b"", 0), ("abc", 3), (b"\xff\xfe", 2), ("é€😀", 9)])
def test_a_size_is_in_bytes_on_the_wire(message: Message, size: int) -> None:
    assert message_size(message) == size


def test_a_lone_surrogate_has_no_size() -> None:
    with pytest.raises(UnicodeEncodeError):
        message_size("\ud800")


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
