"""Both wires keep the same promises: what left is counted, what is heard is stamped, and no foreign error gets out."""

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_wsprim._wire import SocketWire, StreamWire, Wire, _groups, open_wire
from trio_wsprim.testing import memory_stream_pair as bounded_pair


class Failing(trio.abc.Stream):
    """A stream of which every call fails in a way of its own."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("cannot send")

    async def wait_send_all_might_not_block(self) -> None:
        raise RuntimeError("cannot wait")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise RuntimeError("cannot receive")

    async def aclose(self) -> None:
        raise RuntimeError("cannot close")


@asynccontextmanager
async def sockets() -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends over the kernel, with buffers as small as it allows."""
    ends = trio.socket.socketpair()
    for each in ends:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours, theirs = (trio.SocketStream(each) for each in ends)
    async with ours, theirs:
        yield ours, theirs


async def read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = await stream.receive_some(size - len(data))
        assert got
        data += got
    return data


async def test_a_tcp_stream_gets_the_wire_that_knows_sockets() -> None:
    async with sockets() as (ours, _):
        assert type(open_wire(ours)) is SocketWire
    memory, _ = memory_stream_pair()
    assert type(open_wire(memory)) is StreamWire


# --- both wires ---


@pytest.fixture(params=["stream", "socket"])
async def ends(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[Wire, trio.abc.Stream]]:
    """A wire, and the stream at its other end."""
    if request.param == "stream":
        ours, theirs = bounded_pair(4096)
        yield open_wire(ours), theirs
    else:
        async with sockets() as (mine, other):
            yield open_wire(mine), other


async def test_frames_arrive_in_order_and_are_counted(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    frames = [b"a" * 10, b"b" * 100_000, b"c", b"d" * 70_000, b"e" * 20]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.write, frames)
        assert await read_exactly(other, sum(map(len, frames))) == b"".join(frames)
    assert wire.frames_written == len(frames)


async def test_bytes_come_in_and_then_the_end(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    await other.send_all(b"hello")
    assert await wire.receive_some() == b"hello"
    await other.aclose()
    assert await wire.receive_some() == b""


async def test_a_cancelled_write_says_how_many_frames_are_through(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    frames = [b"%05d" % number * 400 for number in range(1000)]
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, frames)
            await wait_all_tasks_blocked()
            scope.cancel()
    await wire.abort()

    came = b""
    while data := await other.receive_some():
        came += data
    whole = len(came) // 2000
    assert 0 < wire.frames_written <= whole
    assert came == b"".join(frames)[: len(came)]


async def test_whom_nobody_hears_gets_a_broken_resource(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await wire.write([bytes(10)] * 3)
    assert wire.frames_written == 0


async def test_after_abort_nothing_works_and_abort_still_does(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    await wire.abort()
    await wire.abort()
    with pytest.raises(trio.BrokenResourceError):
        await wire.write([b"x"])
    with pytest.raises(trio.BrokenResourceError):
        await wire.receive_some()
    assert await other.receive_some() == b""


async def test_abort_wakes_who_reads_and_who_writes(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, _ = ends
    broken: list[str] = []

    async def expect_broken(name: str, work: Callable[[], object]) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await work()  # type: ignore[misc]
        broken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, "read", wire.receive_some)
        nursery.start_soon(expect_broken, "write", lambda: wire.write([bytes(10_000_000)]))
        await wait_all_tasks_blocked()
        await wire.abort()
    assert sorted(broken) == ["read", "write"]


async def test_a_cancelled_abort_closes_and_lets_its_caller_go_on(ends: tuple[Wire, trio.abc.Stream]) -> None:
    wire, other = ends
    went_on = False
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.abort()
        went_on = True
    assert went_on
    assert await other.receive_some() == b""


# --- clocks ---


async def test_times_are_those_of_the_last_byte_each_way(autojump_clock: MockClock) -> None:
    ours, theirs = bounded_pair(10)
    wire = open_wire(ours)
    assert wire.heard_at == wire.moved_at == 0

    await trio.sleep(1)
    await theirs.send_all(b"x")
    await wire.receive_some()
    await trio.sleep(1)
    await wire.write([b"y"])
    theirs.close()
    await trio.sleep(1)
    await wire.receive_some()

    assert (wire.heard_at, wire.moved_at) == (1, 2)


# --- what streams may do ---


async def test_no_error_of_a_stream_gets_out_as_itself() -> None:
    wire = open_wire(Failing())
    with pytest.raises(trio.BrokenResourceError) as caught:
        await wire.write([b"x"])
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(trio.BrokenResourceError):
        await wire.receive_some()
    await wire.abort()
    assert wire.frames_written == 0


async def test_a_stream_whose_close_waits_is_not_waited_for(autojump_clock: MockClock) -> None:
    class Stubborn(Failing):
        async def aclose(self) -> None:
            await trio.sleep(100)

    await open_wire(Stubborn()).abort()
    assert trio.current_time() == 0


def test_small_frames_are_joined_and_large_ones_stay_alone() -> None:
    small, large = bytes(30_000), bytes(100_000)
    assert list(_groups([small, small, small, large, small])) == [[small, small], [small], [large], [small]]
    assert list(_groups([])) == []
