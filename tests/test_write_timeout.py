"""A client that does not read is dropped after `write_timeout`; one that reads slowly is not."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.listeners import call, dialing, serving
from trio_wsprim import Buffer, ConnectionClosed, ReadyState, ServerWebSocket, Undelivered, create_ws_server
from trio_wsprim.testing import Peer

# A frame of it fills what the network here holds.
MESSAGE = b"x" * 62
FRAME_SIZE = 64


class Flood:
    """A handler that sends some messages, and notes how and when its connection ended."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.met: list[ServerWebSocket] = []
        self.ends: list[tuple[float, BaseException]] = []

    async def __call__(self, ws: ServerWebSocket) -> None:
        if ws.request.path != "/":
            async for message in ws:
                await ws.send(message)
            return
        self.met.append(ws)
        try:
            for _ in range(self._count):
                await ws.send(MESSAGE)
            await ws.receive()
        except ConnectionClosed as error:
            self.ends.append((trio.current_time(), error))
            raise


async def read_frame(client: Peer) -> None:
    assert (await client.receive_frame()).payload == MESSAGE


async def test_who_takes_nothing_is_lost_and_nobody_else_is(autojump_clock: MockClock) -> None:
    handler = Flood(10)
    async with serving(handler, FRAME_SIZE) as (server, listener), dialing(listener, "/echo") as bystander:
        client = await call(listener.dial())
        await trio.sleep(29.9)
        assert len(server.connections) == 2
        await trio.sleep(0.2)
        assert len(server.connections) == 1
        await bystander.send("still here")
        assert await bystander.receive() == "still here"
        client.drop()
    ((when, error),) = handler.ends
    assert when == 30
    assert isinstance(error, ConnectionClosed)
    assert error.code == 1006
    assert isinstance(error.__cause__, trio.TooSlowError)
    assert str(error.__cause__) == "the peer took nothing for 30.0 s"
    (ws,) = handler.met
    # The first is with the network; the second was cut short.
    assert ws.undelivered == (Undelivered(MESSAGE, "unsent"),) * 9
    assert (await ws.wait_closed()).error is not None


async def test_who_waits_for_room_is_told(autojump_clock: MockClock) -> None:
    handler = Flood(10)
    async with serving(handler, FRAME_SIZE, outbox=Buffer(max_messages=1), write_timeout=4.0) as (_, listener):
        client = await call(listener.dial())
        await trio.sleep(5)
        assert [when for when, _ in handler.ends] == [4]
        client.drop()


async def test_who_takes_a_little_now_and_then_is_not_lost(autojump_clock: MockClock) -> None:
    handler = Flood(10)
    async with serving(handler, FRAME_SIZE) as (server, listener):
        client = await call(listener.dial())
        for _ in range(10):
            await trio.sleep(25)
            await read_frame(client)
        await wait_all_tasks_blocked()
        assert len(server.connections) == 1
        await trio.sleep(86_400)  # nothing is being written any more, so nothing can be late
        assert len(server.connections) == 1
        assert handler.ends == []
        client.drop()


async def test_who_stops_taking_is_lost_so_long_after_the_last_that_he_took(autojump_clock: MockClock) -> None:
    handler = Flood(10)
    async with serving(handler, FRAME_SIZE, write_timeout=30.0) as (_, listener):
        client = await call(listener.dial())
        await trio.sleep(20)
        await read_frame(client)
        await trio.sleep(40)
        assert [when for when, _ in handler.ends] == [50]
        client.drop()


async def test_without_a_limit_it_takes_as_long_as_it_takes(autojump_clock: MockClock) -> None:
    handler = Flood(3)
    async with serving(handler, FRAME_SIZE, write_timeout=None, close_timeout=None) as (server, listener):
        client = await call(listener.dial())
        await trio.sleep(86_400)
        assert len(server.connections) == 1
        for _ in range(3):
            await read_frame(client)
        client.drop()


async def test_a_handler_that_has_returned_waits_for_its_client_no_longer(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        for _ in range(10):
            await ws.send(MESSAGE)

    async with serving(handle, FRAME_SIZE, write_timeout=2.0, close_timeout=None) as (server, listener):
        client = await call(listener.dial())
        await trio.sleep(3)
        assert await listener.count_open() == 0
        await server.aclose()
        assert trio.current_time() == 3
        client.drop()


async def test_a_socket_of_ours_has_no_such_limit(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await trio.sleep(3600)
        async for message in ws:
            await ws.send(message)

    small = Buffer(max_messages=1)
    async with serving(handle, FRAME_SIZE, inbox=small) as (_, listener), dialing(listener) as ws:
        for _ in range(10):
            await ws.send(MESSAGE)
        assert trio.current_time() == 0
        await trio.sleep(600)
        assert ws.state.value is ReadyState.OPEN
        assert [await ws.receive() for _ in range(10)] == [MESSAGE] * 10


async def test_over_tcp_one_large_message_that_moves_on_is_not_late() -> None:
    size = 15 * 2**20  # more than kernels hold

    async def handle(ws: ServerWebSocket) -> None:
        await ws.send(b"x" * size)
        await ws.wait_closed()

    async with create_ws_server(handle, write_timeout=1.0) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        client = await call(stream)
        got = 0
        with trio.fail_after(30):
            while got < size:
                data = await stream.receive_some(size // 100)
                assert data, f"lost after {got} bytes"
                got += len(data)
                await trio.sleep(0.02)
        client.drop()
