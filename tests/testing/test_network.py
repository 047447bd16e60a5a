"""The network in memory has the manners of TCP, and counts what is alive."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream, wait_all_tasks_blocked

from trio_wsprim.testing import Dial, MemoryNetwork, MemoryStream, memory_stream_pair


async def make_pair() -> tuple[MemoryStream, MemoryStream]:
    return memory_stream_pair()


async def make_clogged_pair() -> tuple[MemoryStream, MemoryStream]:
    ours, theirs = memory_stream_pair(buffer_size=1)
    await ours.send_all(b"x")
    await theirs.send_all(b"x")
    return ours, theirs


async def test_streams_pass_trio_s_own_conformance_check() -> None:
    await check_half_closeable_stream(make_pair, make_clogged_pair)


# --- streams ---


async def test_a_write_larger_than_the_buffer_goes_out_as_the_reader_reads() -> None:
    ours, theirs = memory_stream_pair(buffer_size=4)
    received = bytearray()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"abcdefghij")
        await wait_all_tasks_blocked()
        while len(received) < 10:
            chunk = await theirs.receive_some(3)
            assert len(chunk) <= 3
            received += chunk

    assert received == b"abcdefghij"


async def test_a_reader_that_does_not_read_pushes_back_on_the_writer() -> None:
    ours, _theirs = memory_stream_pair(buffer_size=4)
    await ours.send_all(b"abcd")
    await ours.send_all(b"")

    with trio.move_on_after(0) as scope:
        await ours.send_all(b"e")

    assert scope.cancelled_caught


async def test_a_cancelled_write_has_sent_what_there_was_room_for(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = memory_stream_pair(buffer_size=4)

    with trio.move_on_after(1):
        await ours.send_all(b"abcdef")

    assert await theirs.receive_some() == b"abcd"


async def test_a_call_cancelled_beforehand_does_nothing() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"kept")

    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send_all(b"never")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.receive_some()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send_eof()

    await ours.send_all(b"first")
    assert await theirs.receive_some() == b"first"
    assert await ours.receive_some() == b"kept"


async def test_any_buffer_can_be_sent_and_is_released() -> None:
    ours, theirs = memory_stream_pair()
    data = bytearray(b"\1\0\2\0")

    await ours.send_all(memoryview(data).cast("H"))
    data += b"room to grow"

    assert await theirs.receive_some() == b"\1\0\2\0"


async def test_a_read_of_no_bytes_is_refused() -> None:
    ours, _theirs = memory_stream_pair()
    with pytest.raises(ValueError, match=r"^max_bytes must be at least 1, got 0$"):
        await ours.receive_some(0)


async def test_close_lets_the_other_end_read_what_was_sent_and_then_eof() -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"last words")

    ours.close()
    ours.close()

    assert await theirs.receive_some(4) == b"last"
    assert await theirs.receive_some() == b" words"
    assert await theirs.receive_some() == b""
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"too late")
    with pytest.raises(trio.BrokenResourceError):
        await theirs.wait_send_all_might_not_block()


async def test_eof_can_follow_the_other_end_s_close() -> None:
    ours, theirs = memory_stream_pair()
    ours.close()
    await theirs.send_eof()
    await theirs.aclose()


async def test_reset_destroys_what_is_unread_in_both_directions() -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"lost")
    await theirs.send_all(b"lost")

    ours.reset()
    ours.reset()

    with pytest.raises(trio.BrokenResourceError):
        await theirs.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"")
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"")
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_eof()


async def test_reset_after_close_takes_nothing_back() -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"kept")
    ours.close()
    ours.reset()
    assert await theirs.receive_some() == b"kept"


WAITS: dict[str, Callable[[MemoryStream], Awaitable[object]]] = {
    "send_all": lambda stream: stream.send_all(b"more"),
    "wait_send_all_might_not_block": lambda stream: stream.wait_send_all_might_not_block(),
    "receive_some": lambda stream: stream.receive_some(),
}


@pytest.fixture
async def clogged() -> tuple[MemoryStream, MemoryStream]:
    """The first can neither send nor receive."""
    ours, theirs = memory_stream_pair(buffer_size=1)
    await ours.send_all(b"x")
    return ours, theirs


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_whoever_waits_is_woken_by_a_reset(
    wait: Callable[[MemoryStream], Awaitable[object]], clogged: tuple[MemoryStream, MemoryStream]
) -> None:
    ours, theirs = clogged
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, ours)
            await wait_all_tasks_blocked()
            theirs.reset()


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_whoever_waits_is_woken_by_our_own_close(
    wait: Callable[[MemoryStream], Awaitable[object]], clogged: tuple[MemoryStream, MemoryStream]
) -> None:
    ours, _theirs = clogged
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, ours)
            await wait_all_tasks_blocked()
            ours.close()


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_the_second_of_two_tasks_is_told_so(
    wait: Callable[[MemoryStream], Awaitable[object]], clogged: tuple[MemoryStream, MemoryStream]
) -> None:
    ours, _theirs = clogged
    with pytest.RaisesGroup(pytest.RaisesExc(trio.BusyResourceError, match=r"^another task is .+ this stream$")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, ours)
            nursery.start_soon(wait, ours)


@pytest.mark.parametrize("wait", ["send_all", "wait_send_all_might_not_block"])
async def test_a_writer_is_woken_when_the_reader_closes(wait: str, clogged: tuple[MemoryStream, MemoryStream]) -> None:
    ours, theirs = clogged
    with pytest.RaisesGroup(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(WAITS[wait], ours)
            await wait_all_tasks_blocked()
            theirs.close()


async def test_a_reader_is_woken_by_eof() -> None:
    ours, theirs = memory_stream_pair()
    received = [b"not yet"]

    async def read() -> None:
        received[0] = await ours.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await theirs.send_eof()

    assert received == [b""]
    await ours.send_all(b"still works")
    assert await theirs.receive_some() == b"still works"


# --- the network ---


async def test_connections_are_accepted_in_the_order_of_the_dials() -> None:
    network = MemoryNetwork()
    first = await network.open_stream("one.test", 80)
    second = await network.open_stream("two.test", 443)
    await first.send_all(b"I am the first")
    await second.send_all(b"I am the second")

    earlier, later = await network.accept(), await network.accept()

    assert await earlier.stream.receive_some() == b"I am the first"
    assert await later.stream.receive_some() == b"I am the second"


async def test_accept_waits_for_a_dial() -> None:
    network = MemoryNetwork()

    async def serve() -> None:
        peer = await network.accept()
        await peer.send_raw(b"welcome")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await wait_all_tasks_blocked()
        stream = await network.open_stream("echo.test", 80)
        assert await stream.receive_some() == b"welcome"


async def test_every_dial_is_recorded_with_its_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()

    with pytest.raises(ConnectionRefusedError):
        await network.open_stream("echo.test", 80)
    await trio.sleep(5)
    await network.open_stream("echo.test", 81)

    assert network.dials == [Dial("echo.test", 80, 0), Dial("echo.test", 81, 5)]


async def test_a_dial_cancelled_beforehand_leaves_no_trace() -> None:
    network = MemoryNetwork()
    network.refuse()

    with trio.CancelScope() as scope:
        scope.cancel()
        await network.open_stream("echo.test", 80)

    assert network.dials == []
    with pytest.raises(ConnectionRefusedError):
        await network.open_stream("echo.test", 80)


async def test_faults_take_the_coming_dials_in_the_order_they_were_asked_for(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    network.stall()
    network.refuse(error=TimeoutError("timed out"))
    network.delay(3)

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await network.open_stream("echo.test", 80)
    with trio.move_on_after(1000) as scope:
        await network.open_stream("echo.test", 80)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError, match="timed out"):
        await network.open_stream("echo.test", 80)
    assert network.live == 0
    await network.open_stream("echo.test", 80)

    assert trio.current_time() == 1003
    assert network.live == 1
    assert len(network.dials) == 5


async def test_the_network_counts_what_the_client_has_open() -> None:
    network = MemoryNetwork()
    first = await network.open_stream("echo.test", 80)
    second = await network.open_stream("echo.test", 80)
    (await network.accept()).reset()
    assert (network.live, network.most_live) == (2, 2)

    await first.aclose()
    await first.aclose()
    assert (network.live, network.most_live) == (1, 2)

    second.reset()
    await network.open_stream("echo.test", 80)
    assert (network.live, network.most_live) == (1, 2)


async def test_the_buffer_size_bounds_both_directions() -> None:
    network = MemoryNetwork(buffer_size=3)
    stream = await network.open_stream("echo.test", 80)
    peer = await network.accept()

    with trio.move_on_after(0.01):
        await stream.send_all(b"abcdef")
    with trio.move_on_after(0.01):
        await peer.send_raw(b"uvwxyz")

    assert await stream.receive_some() == b"uvw"
    assert await peer.stream.receive_some() == b"abc"


def test_a_network_without_buffers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^buffer_size must be at least 1, got 0$"):
        MemoryNetwork(buffer_size=0)
