"""All wires keep the same promises: what left is counted, what is heard is stamped, and no foreign error gets out."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import struct
import warnings
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.tls import HOST, TlsServer, client_context, narrow_pair, serve_handshake, server_context
from tests.wires import ScriptedWire
from trio_wsprim._tls import TlsStream
from trio_wsprim._wire import READ_BYTES, SocketWire, StreamWire, TlsWire, Wire, open_wire
from trio_wsprim.testing import memory_stream_pair as bounded_pair

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


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
    ours, theirs = narrow_pair()
    async with ours, theirs:
        yield ours, theirs


@asynccontextmanager
async def wired(stream: trio.abc.Stream) -> AsyncGenerator[Wire]:
    """A wire, which must not be left to the garbage collector: it has a handle of the stream's own descriptor."""
    wire = open_wire(stream)
    try:
        yield wire
    finally:
        await wire.abort()


@asynccontextmanager
async def tls_and_server() -> AsyncGenerator[tuple[Wire, trio.SocketStream, TlsServer]]:
    """A wire over TLS, and at its other end the socket and whoever makes sense of what comes."""
    async with sockets() as (near, far):
        secure, server = TlsStream(near, client_context(), HOST), TlsServer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_handshake, far, server)
            await secure.do_handshake()
        async with wired(secure) as wire:
            yield wire, far, server


@asynccontextmanager
async def tls_streams() -> AsyncGenerator[tuple[TlsStream, trio.SSLStream[trio.SocketStream]]]:
    """Two ends of a TLS connection over such sockets."""
    async with sockets() as (near, far):
        ours = TlsStream(near, client_context(), HOST)
        theirs = trio.SSLStream(far, server_context(), server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.do_handshake)
            await ours.do_handshake()
        yield ours, theirs


async def read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = await stream.receive_some(size - len(data))
        assert got
        data += got
    return data


async def read_all(stream: trio.abc.Stream) -> bytes:
    data = b""
    while got := await stream.receive_some():
        data += got
    return data


async def write_all(wire: Wire, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[await wire.write(rest) :]


async def expect(kind: type[BaseException] | tuple[type[BaseException], ...], work: Awaitable[object]) -> None:
    with pytest.raises(kind):
        await work


async def test_each_stream_gets_the_wire_that_knows_it() -> None:
    async with sockets() as (ours, _), wired(ours) as wire:
        assert type(wire) is SocketWire
    async with tls_streams() as (secure, _), wired(secure) as wire:
        assert type(wire) is TlsWire
    memory, _ = memory_stream_pair()
    assert type(open_wire(memory)) is StreamWire
    assert type(open_wire(trio.SSLStream(memory, client_context(), server_hostname=HOST))) is StreamWire


# --- all wires ---

Ends = tuple[Wire, trio.abc.Stream]


@pytest.fixture(params=["stream", "socket", "tls"])
async def ends(request: pytest.FixtureRequest) -> AsyncGenerator[Ends]:
    """A wire, and the stream at its other end."""
    if request.param == "stream":
        ours, theirs = bounded_pair(4096)
        yield open_wire(ours), theirs
    elif request.param == "socket":
        async with sockets() as (mine, other), wired(mine) as wire:
            yield wire, other
    else:
        async with tls_streams() as (secure, others), wired(secure) as wire:
            yield wire, others


async def test_what_is_written_arrives_in_order(ends: Ends) -> None:
    wire, other = ends
    data = b"".join(b"%07d " % number for number in range(40_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, wire, data)
        assert await read_exactly(other, len(data)) == data
    assert not wire.holds


async def test_bytes_come_in_and_then_the_end_however_often_it_is_asked_for(ends: Ends) -> None:
    wire, other = ends
    await other.send_all(b"hello")
    assert await wire.receive_some() == b"hello"
    beneath = other.transport_stream if isinstance(other, trio.SSLStream) else other
    assert isinstance(beneath, trio.abc.HalfCloseableStream)
    await beneath.send_eof()
    assert await wire.receive_some() == b""
    assert await wire.receive_some() == b""


async def test_both_directions_at_once_do_not_disturb_each_other(ends: Ends) -> None:
    wire, other = ends
    data = bytes(300_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, wire, data)
        nursery.start_soon(other.send_all, data)

        async def receive() -> None:
            left = len(data)
            while left:
                left -= len(await wire.receive_some())

        nursery.start_soon(receive)
        assert await read_exactly(other, len(data)) == data


async def test_whom_nobody_hears_gets_a_broken_resource(ends: Ends) -> None:
    wire, other = ends
    await trio.aclose_forcefully(other)
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(3):
            await wire.write(bytes(10))


async def test_a_cancelled_receive_loses_nothing(ends: Ends) -> None:
    wire, other = ends
    for message in (b"one", b"two"):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.receive_some)
                await wait_all_tasks_blocked()
                scope.cancel()
        await other.send_all(message)
        assert await wire.receive_some() == message


async def test_after_abort_nothing_is_written_and_abort_still_works(ends: Ends) -> None:
    wire, other = ends
    await wire.abort()
    await wire.abort()
    with pytest.raises(trio.BrokenResourceError):
        await wire.write(b"x")
    assert await other.receive_some() == b""


async def test_after_abort_nothing_is_read(ends: Ends) -> None:
    wire, _ = ends
    await wire.abort()
    await expect(GONE, wire.receive_some())
    await expect(GONE, wire.receive_some())


async def test_abort_wakes_who_reads(ends: Ends) -> None:
    wire, _ = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, GONE, wire.receive_some())
        await wait_all_tasks_blocked()
        await wire.abort()


async def test_abort_wakes_who_writes(ends: Ends) -> None:
    wire, _ = ends

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.BrokenResourceError, write_all(wire, bytes(10_000_000)))
        await wait_all_tasks_blocked()
        await wire.abort()


async def test_a_cancelled_abort_closes_and_lets_its_caller_go_on(ends: Ends) -> None:
    wire, other = ends
    went_on = False
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.abort()
        went_on = True
    assert went_on
    assert await other.receive_some() == b""


async def test_a_call_in_a_cancelled_scope_reads_nothing(ends: Ends) -> None:
    wire, other = ends
    await other.send_all(b"there")
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.receive_some()
    assert scope.cancelled_caught
    assert await wire.receive_some() == b"there"


async def test_times_are_those_of_the_last_byte_each_way(autojump_clock: MockClock) -> None:
    ours, theirs = bounded_pair(10)
    wire = open_wire(ours)
    assert wire.heard_at == wire.moved_at == 0

    await trio.sleep(1)
    await theirs.send_all(b"x")
    await wire.receive_some()
    await trio.sleep(1)
    await wire.write(b"y")
    theirs.close()
    await trio.sleep(1)
    await wire.receive_some()

    assert (wire.heard_at, wire.moved_at) == (1, 2)


async def test_only_a_socket_s_wire_is_direct(ends: Ends) -> None:
    wire, _ = ends
    assert wire.is_direct == isinstance(wire, SocketWire)
    if not wire.is_direct:
        assert wire.write_now(b"x") == 0
        assert not wire.holds
        wire.interrupt()


# --- direct wires: every byte is accounted for ---


class Direct(Protocol):
    """A direct wire, and a far end that reads only when it is told to."""

    wire: Wire

    def read(self) -> bytes:
        """Read all that can be read now; that makes room."""
        ...

    def break_off(self) -> None:
        """End the connection by force."""
        ...


class DirectScript:
    def __init__(self, record_bytes: int | None) -> None:
        self._scripted = ScriptedWire(record_bytes)
        self._scripted.allow(5000)
        self._read = 0
        self.wire: Wire = self._scripted

    def read(self) -> bytes:
        data = bytes(self._scripted.taken[self._read :])
        self._read += len(data)
        self._scripted.allow(3000)
        return data

    def break_off(self) -> None:
        self._scripted.break_off()


class DirectSocket:
    def __init__(self, wire: Wire, other: trio.SocketStream, server: TlsServer | None = None) -> None:
        self.wire = wire
        self._socket = socket.socket(fileno=other.socket.fileno())
        self._socket.setblocking(False)
        self._server = server

    def read(self) -> bytes:
        data = b""
        try:
            while got := self._socket.recv(3000):
                data += got
        except BlockingIOError:
            pass
        if self._server is None:
            return data
        self._server.feed(data)
        return self._server.read()

    def break_off(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def detach(self) -> None:
        self._socket.detach()


@pytest.fixture(params=["socket", "tls", "script", "script with records", "script with large records"])
async def direct(request: pytest.FixtureRequest) -> AsyncGenerator[Direct]:
    if request.param == "script":
        yield DirectScript(None)
    elif request.param.startswith("script"):
        yield DirectScript(700 if request.param == "script with records" else 10_000)
    else:
        async with AsyncExitStack() as stack:
            if request.param == "socket":
                ours, theirs = await stack.enter_async_context(sockets())
                far = DirectSocket(await stack.enter_async_context(wired(ours)), theirs)
            else:
                far = DirectSocket(*await stack.enter_async_context(tls_and_server()))
            yield far
            far.detach()


async def test_write_now_counts_what_the_peer_can_read_and_nothing_else(direct: Direct) -> None:
    wire = direct.wire
    data = b"".join(b"%07d " % number for number in range(12_500))
    assert wire.is_direct
    counted, came = 0, b""
    while counted < len(data):
        size = wire.write_now(memoryview(data)[counted:])
        counted += size
        came += direct.read()
        assert len(came) == counted
    assert came == data
    assert not wire.holds


async def test_a_wire_that_is_full_takes_nothing_more(direct: Direct) -> None:
    wire, data = direct.wire, bytes(1_000_000)
    counted = 0
    while size := wire.write_now(data[counted:]):
        counted += size
    assert wire.write_now(data[counted:]) == 0
    assert len(direct.read()) == counted


async def test_write_waits_for_room_and_takes_at_least_a_byte(direct: Direct) -> None:
    wire, data = direct.wire, b"".join(b"%07d " % number for number in range(20_000))
    sizes: list[int] = []
    came = b""

    async def write() -> None:
        while sum(sizes) < len(data):
            sizes.append(await wire.write(memoryview(data)[sum(sizes) :]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while len(came) < len(data):
            await wait_all_tasks_blocked()
            came += direct.read()
    assert came == data
    assert sum(sizes) == len(data)
    assert min(sizes) > 0


async def test_a_cancelled_write_has_taken_nothing(direct: Direct) -> None:
    wire, data = direct.wire, b"".join(b"%07d " % number for number in range(20_000))
    counted = 0
    while size := wire.write_now(memoryview(data)[counted:]):
        counted += size
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.write, memoryview(data)[counted:])
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    came = b""
    while counted < len(data):  # it can be taken up again, by either call
        came += direct.read()
        counted += wire.write_now(memoryview(data)[counted:])
    came += direct.read()
    assert came == data


async def test_a_wire_tells_when_it_holds_what_it_has_not_counted(direct: Direct) -> None:
    wire, data = direct.wire, bytes(1_000_000)
    assert not wire.holds
    assert wire.write_now(b"small") == 5
    assert not wire.holds
    counted = 0
    while size := wire.write_now(data[counted:]):
        counted += size
    keeps_all = isinstance(wire, TlsWire) or (isinstance(wire, ScriptedWire) and wire._record_bytes is not None)
    assert wire.holds == keeps_all


async def test_a_write_that_fails_was_a_broken_resource(direct: Direct) -> None:
    wire, data = direct.wire, bytes(1_000_000)
    counted = 0
    while size := wire.write_now(data[counted:]):
        counted += size
    came = direct.read()
    direct.break_off()
    assert len(came) == counted
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            wire.write_now(data[counted:])
        with pytest.raises(trio.BrokenResourceError):
            await wire.write(data[counted:])


async def test_a_failure_wakes_who_writes(direct: Direct) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.BrokenResourceError, write_all(direct.wire, bytes(1_000_000)))
        await wait_all_tasks_blocked()
        direct.break_off()


# --- sockets, with and without TLS ---


@pytest.fixture(params=["socket", "tls"])
async def socket_ends(request: pytest.FixtureRequest) -> AsyncGenerator[Ends]:
    if request.param == "socket":
        async with sockets() as (mine, other), wired(mine) as wire:
            yield wire, other
    else:
        async with tls_streams() as (secure, others), wired(secure) as wire:
            yield wire, others


async def test_a_socket_knows_the_times_too(mock_clock: MockClock, socket_ends: Ends) -> None:
    wire, other = socket_ends
    assert wire.heard_at == wire.moved_at == 0

    mock_clock.jump(1)
    await other.send_all(b"x")
    await wire.receive_some()
    mock_clock.jump(1)
    while wire.write_now(bytes(1000)):
        pass
    mock_clock.jump(1)
    assert wire.write_now(bytes(1000)) == 0

    assert (wire.heard_at, wire.moved_at) == (1, 2)


async def test_an_interrupt_ends_a_read_and_nothing_else(socket_ends: Ends) -> None:
    wire, other = socket_ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.ClosedResourceError, wire.receive_some())
        await wait_all_tasks_blocked()
        wire.interrupt()
    await other.send_all(b"still there")
    assert await wire.receive_some() == b"still there"
    await write_all(wire, b"both ways")
    assert await read_exactly(other, 9) == b"both ways"


async def test_an_interrupt_reaches_who_has_not_begun_to_wait() -> None:
    # The order in which trio runs two tasks that are ready is random, so once is not enough.
    for _ in range(40):
        async with wide_sockets() as (ours, theirs), wired(ours) as wire:
            await theirs.send_all(bytes(READ_BYTES))
            await wire.receive_some()  # which is full, so that the next does not wait for the descriptor at first
            outcomes: list[object] = []
            has_begun = False

            async def read(wire: Wire = wire, outcomes: list[object] = outcomes) -> None:
                nonlocal has_begun
                has_begun = True
                try:
                    outcomes.append(await wire.receive_some())
                except trio.ClosedResourceError:
                    outcomes.append("told")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while not has_begun:
                    await trio.lowlevel.checkpoint()
                wire.interrupt()
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert outcomes == ["told"]


async def test_an_interrupt_with_nobody_to_interrupt_is_nothing(socket_ends: Ends) -> None:
    wire, other = socket_ends
    wire.interrupt()
    await other.send_all(b"x")
    assert await wire.receive_some() == b"x"


async def test_an_interrupt_spares_who_writes(socket_ends: Ends) -> None:
    wire, other = socket_ends
    data = bytes(1_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, wire, data)
        await wait_all_tasks_blocked()
        wire.interrupt()
        assert await read_exactly(other, len(data)) == data


@pytest.mark.parametrize("size", [READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES])
async def test_reads_of_any_size_are_all_that_there_is(socket_ends: Ends, size: int) -> None:
    wire, other = socket_ends
    data = bytes(range(256)) * (size // 256 + 1)
    came = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.send_all, data[:size])
        while len(came) < size:
            came += await wire.receive_some()
    assert came == data[:size]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.send_all, b"after a wait")
        assert await wire.receive_some() == b"after a wait"


@asynccontextmanager
async def wide_sockets() -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends over the kernel that take more than a read takes."""
    ends = trio.socket.socketpair()
    for each in ends:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * READ_BYTES)
    ours, theirs = (trio.SocketStream(each) for each in ends)
    async with ours, theirs:
        yield ours, theirs


async def test_after_a_full_read_who_finds_nothing_more_waits() -> None:
    async with wide_sockets() as (ours, theirs), wired(ours) as wire:
        for call in ("some", "into"):
            await theirs.send_all(bytes(READ_BYTES))
            assert await wire.receive_some() == bytes(READ_BYTES)  # as if there were more
            room = bytearray(10)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    if call == "some":
                        nursery.start_soon(wire.receive_some)
                    else:
                        nursery.start_soon(wire.receive_into, memoryview(room))
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            assert room == bytes(10)


async def test_a_full_read_is_a_schedule_point_all_the_same() -> None:
    async with wide_sockets() as (ours, theirs), wired(ours) as wire:
        await theirs.send_all(bytes(4 * READ_BYTES))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(4):
                assert len(await wire.receive_some()) == READ_BYTES
            nursery.cancel_scope.cancel()
        assert turns >= 3


@pytest.mark.parametrize("call", ["some", "into"])
async def test_who_is_about_to_read_when_the_wire_is_aborted_has_read_or_is_told(call: str) -> None:
    # The order in which trio runs two tasks that are ready is random, so once is not enough.
    outcomes: set[object] = set()
    for _ in range(40):
        async with wide_sockets() as (ours, theirs), wired(ours) as wire:
            await theirs.send_all(bytes(READ_BYTES + 100))
            await wire.receive_some()  # and now it does not wait for the descriptor
            has_begun = False

            async def read(wire: Wire = wire) -> None:
                nonlocal has_begun
                has_begun = True
                try:
                    size = await wire.receive_into(memoryview(bytearray(100))) if call == "into" else 100
                    outcomes.add(size if call == "into" else len(await wire.receive_some()))
                except trio.ClosedResourceError:
                    outcomes.add("told")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while not has_begun:
                    await trio.lowlevel.checkpoint()
                await wire.abort()
    assert outcomes == {100, "told"}


# --- reading into memory that is there ---


async def test_a_socket_is_read_into_memory_that_is_there() -> None:
    async with sockets() as (ours, theirs), wired(ours) as wire:
        room = bytearray(100)
        await theirs.send_all(b"hello, world")
        assert await wire.receive_into(memoryview(room)[:5]) == 5
        assert await wire.receive_into(memoryview(room)[5:]) == 7
        assert room == b"hello, world" + bytes(88)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.receive_into, memoryview(room))
            await wait_all_tasks_blocked()
            await theirs.send_all(b"waited for")
        assert room == b"waited forld" + bytes(88)
        await theirs.aclose()
        assert await wire.receive_into(memoryview(room)) == 0
        assert await wire.receive_some() == b""


async def test_a_cancelled_read_into_memory_leaves_it_alone() -> None:
    async with sockets() as (ours, theirs), wired(ours) as wire:
        room = bytearray(10)
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.receive_into(memoryview(room))
        await theirs.send_all(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.receive_into(memoryview(room))
        assert room == bytes(10)
        assert await wire.receive_some() == b"x"


async def test_who_reads_into_memory_is_interrupted_too() -> None:
    async with sockets() as (ours, _), wired(ours) as wire, trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.ClosedResourceError, wire.receive_into(memoryview(bytearray(1))))
        await wait_all_tasks_blocked()
        wire.interrupt()


async def test_reading_into_memory_counts_as_hearing(mock_clock: MockClock) -> None:
    async with sockets() as (ours, theirs), wired(ours) as wire:
        await theirs.send_all(b"x")
        mock_clock.jump(3)
        await wire.receive_into(memoryview(bytearray(1)))
        assert wire.heard_at == 3
        mock_clock.jump(3)
        await theirs.aclose()
        await wire.receive_into(memoryview(bytearray(1)))
        assert wire.heard_at == 3


@pytest.mark.parametrize("kind", ["stream", "tls"])
async def test_other_wires_say_at_once_that_they_cannot_do_that(kind: str) -> None:
    room = bytearray(10)
    if kind == "stream":
        assert await open_wire(memory_stream_pair()[0]).receive_into(memoryview(room)) is None
    else:
        async with tls_streams() as (secure, others), wired(secure) as wire:
            await others.send_all(b"there")
            assert await wire.receive_into(memoryview(room)) is None
    assert room == bytes(10)


# --- what goes wrong on sockets ---


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    far = await listeners[0].accept()
    await listeners[0].aclose()
    return near, far


@pytest.mark.parametrize("call", ["some", "into"])
async def test_a_reset_is_a_broken_resource(call: str) -> None:
    near, far = await tcp_pair()
    wire = open_wire(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.socket.close()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await (wire.receive_some() if call == "some" else wire.receive_into(memoryview(bytearray(1))))
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    with pytest.raises(trio.BrokenResourceError) as caught:
        wire.write_now(b"x")
    assert isinstance(caught.value.__cause__, OSError)
    await wire.abort()


async def test_an_aborted_wire_leaves_no_descriptor_behind() -> None:
    near, far = await tcp_pair()
    wire, number = open_wire(near), near.socket.fileno()
    await wire.abort()
    assert near.socket.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        socket.socket(fileno=number)
    await far.aclose()


async def test_a_wire_that_is_forgotten_leaves_the_descriptor_to_its_stream() -> None:
    ours, theirs = narrow_pair()
    number = ours.socket.fileno()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        open_wire(ours)
        gc.collect()
    await theirs.aclose()
    try:
        os.fstat(number)
    except OSError:
        ours.socket.detach()  # or it would close whatever has that number now
        raise
    await ours.aclose()


# --- TLS ---


async def test_tampered_tls_is_a_broken_resource() -> None:
    async with tls_streams() as (secure, others), wired(secure) as wire:
        await others.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await wire.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_what_tls_cannot_encrypt_any_more_is_a_broken_resource() -> None:
    async with tls_and_server() as (wire, far, _):
        await far.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        await expect(trio.BrokenResourceError, wire.receive_some())
        with pytest.raises(trio.BrokenResourceError) as caught:
            wire.write_now(b"x")
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await expect(trio.BrokenResourceError, wire.write(b"x"))


@pytest.mark.parametrize("is_full", [False, True])
async def test_tls_s_own_answer_goes_out_without_a_write_of_ours_and_behind_one(is_full: bool) -> None:
    # A stream that ends without a close_notify makes OpenSSL answer with an alert.
    async with tls_and_server() as (wire, far, server):
        data, counted = bytes(100_000), 0
        if is_full:
            counted = wire.write_now(data)
            assert wire.holds
        await far.send_eof()
        assert await wire.receive_some() == b""

        plain = b""
        with trio.fail_after(5), pytest.raises(ssl.SSLError):
            while True:
                server.feed(await far.receive_some())
                while got := server.read():
                    plain += got
                if wire.holds:
                    counted += wire.write_now(data[counted:])
                if not wire.holds:
                    assert await wire.receive_some() == b""
                assert len(plain) <= counted
        assert len(plain) == counted == (len(data) if is_full else 0)


async def test_an_end_without_a_goodbye_is_the_end_also_where_nobody_takes_the_answer() -> None:
    async with tls_and_server() as (wire, far, server):
        await far.send_all(server.write(b"last"))
        await far.aclose()
        assert await wire.receive_some() == b"last"
        assert await wire.receive_some() == b""


async def test_a_goodbye_of_tls_is_the_end() -> None:
    async with tls_and_server() as (wire, far, server):
        await far.send_all(server.write(b"last") + server.say_goodbye() + b"nonsense behind it")
        assert await wire.receive_some() == b"last"
        assert await wire.receive_some() == b""
        assert await wire.receive_some() == b""


@pytest.mark.parametrize("step", [1, 7, 16 * 1024])
async def test_tls_that_drips_in_is_read_as_it_becomes_whole(step: int) -> None:
    async with tls_and_server() as (wire, far, server):
        cipher = server.write(b"a" * 10) + server.write(b"b" * (10 if step == 1 else 5000))
        came = b""
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for start in range(0, len(cipher), step):
                    await far.send_all(cipher[start : start + step])
                    await wait_all_tasks_blocked()

            nursery.start_soon(drip)
            while len(came) < (20 if step == 1 else 5010):
                came += await wire.receive_some()
        assert came == b"a" * 10 + b"b" * (len(came) - 10)


async def test_what_tls_has_read_before_the_wire_was_made_is_not_lost() -> None:
    async with tls_streams() as (secure, others):
        await others.send_all(b"early bird")
        assert await secure.receive_some(5) == b"early"
        async with wired(secure) as wire:
            assert await wire.receive_some() == b" bird"


# --- what streams may do ---


async def test_no_error_of_a_stream_gets_out_as_itself() -> None:
    wire = open_wire(Failing())
    for call in (lambda: wire.write(b"x"), wire.receive_some):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await call()
        assert isinstance(caught.value.__cause__, RuntimeError)
    await wire.abort()


async def test_a_stream_is_given_all_at_once() -> None:
    ours, theirs = bounded_pair(1000)
    wire = open_wire(ours)
    assert await wire.write(bytes(1000)) == 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_exactly, theirs, 3000)
        assert await wire.write(memoryview(bytes(2000))) == 2000


async def test_what_a_stream_gives_is_bytes() -> None:
    class Mutable(Failing):
        async def receive_some(self, max_bytes: int | None = None) -> bytearray:  # type: ignore[override]
            return bytearray(b"changes")

    assert type(await open_wire(Mutable()).receive_some()) is bytes


async def test_a_stream_whose_close_waits_is_not_waited_for(autojump_clock: MockClock) -> None:
    class Stubborn(Failing):
        async def aclose(self) -> None:
            await trio.sleep(100)

    await open_wire(Stubborn()).abort()
    assert trio.current_time() == 0


async def test_a_stream_whose_close_does_not_even_mind_being_cancelled_is_not_waited_for_long(
    autojump_clock: MockClock,
) -> None:
    class Deaf(Failing):
        async def aclose(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)

    await open_wire(Deaf()).abort()
    assert trio.current_time() == 0.5
