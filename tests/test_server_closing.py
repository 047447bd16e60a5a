"""How a server ends: by `aclose`, by leaving its block, by a cancellation, and what its clients and handlers see."""

from __future__ import annotations

import logging
import math
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.listeners import MemoryListener, call, dialing, handshake, hear_close, serving
from trio_wsprim import (
    Buffer,
    ReadyState,
    Rejection,
    Request,
    Server,
    ServerWebSocket,
    create_reconnecting_ws,
    create_ws_server,
    make_ws,
    serve_ws,
)
from trio_wsprim.testing import Peer

LOG = "trio_wsprim.server"
URL = "ws://example.test/"


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def stay(_ws: ServerWebSocket) -> None:
    await trio.sleep_forever()


async def listen(client: Peer, codes: list[tuple[int, float]]) -> None:
    codes.append((await hear_close(client), trio.current_time()))


# ------------------------------------------------------------------------------------ in good order


async def test_leaving_the_block_tells_all_clients_1001(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG)
    codes: list[tuple[int, float]] = []
    async with trio.open_nursery() as nursery, serving(echo) as (_, listener):
        for _ in range(5):
            nursery.start_soon(listen, await call(listener.dial()), codes)
    assert codes == [(1001, 0)] * 5
    assert caplog.records == []


async def test_what_outboxes_hold_goes_out_first(autojump_clock: MockClock) -> None:
    got: list[str | bytes] = []

    async def handle(ws: ServerWebSocket) -> None:
        for number in range(300):
            await ws.send(f"{number}")
        await ws.wait_closed()

    async def read() -> None:
        ws = make_ws(nursery, URL, open_stream=listener.open_stream)
        await ws.wait_open()
        is_open.set()
        await trio.sleep(2)
        async for message in ws:
            got.append(message)
        assert (await ws.wait_closed()).code == 1001

    is_open = trio.Event()
    async with trio.open_nursery() as nursery, serving(handle, 128) as (_, listener):
        nursery.start_soon(read)
        await is_open.wait()
        await wait_all_tasks_blocked()
    assert got == [f"{number}" for number in range(300)]


async def test_handlers_have_time_to_finish(autojump_clock: MockClock) -> None:
    finished: list[float] = []

    async def handle(ws: ServerWebSocket) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
        await trio.sleep(3)
        finished.append(trio.current_time())

    async with serving(handle) as (server, listener), dialing(listener) as ws:
        await ws.wait_open()
        await server.aclose()
        assert trio.current_time() == 3
        assert (await ws.wait_closed()).code == 1001
    assert finished == [3]


async def test_after_the_grace_connections_are_aborted_and_handlers_cancelled(autojump_clock: MockClock) -> None:
    cancelled: list[float] = []

    async def handle(ws: ServerWebSocket) -> None:
        await ws.send(b"x" * 1000)
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    async with serving(handle, 64) as (server, listener):
        clients = [await call(listener.dial()) for _ in range(3)]  # who read nothing
        await server.aclose(grace=7)
        assert trio.current_time() == 7
        assert cancelled == [7] * 3
        assert await listener.count_open() == 0
        for client in clients:
            client.drop()


async def test_without_any_grace_all_ends_now(autojump_clock: MockClock) -> None:
    async with serving(stay) as (server, listener):
        client = await call(listener.dial())
        await server.aclose(grace=0)
        assert trio.current_time() == 0
        assert await client.stream.receive_some() == b""
        client.drop()


@pytest.mark.parametrize("grace", [-1, math.nan, math.inf])
async def test_a_grace_that_makes_no_sense_closes_nothing(autojump_clock: MockClock, grace: float) -> None:
    async with serving(echo) as (server, listener), dialing(listener) as ws:
        with pytest.raises(ValueError, match="grace"):
            await server.aclose(grace)
        await ws.send("hello")
        assert await ws.receive() == "hello"


async def test_nobody_is_accepted_any_more(autojump_clock: MockClock) -> None:
    async with serving(stay) as (server, listener), trio.open_nursery() as nursery:
        await call(listener.dial())
        nursery.start_soon(server.aclose, 3)
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            listener.dial()
        assert server.connections == frozenset()
        assert await server.broadcast("to nobody") == frozenset()


async def test_who_is_in_its_handshake_is_hung_up_on_without_a_word_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(_request: Request) -> Rejection | None:
        await trio.sleep_forever()
        raise AssertionError

    caplog.set_level(logging.INFO, LOG)
    async with serving(stay, authorize=authorize) as (server, listener):
        silent, asked = listener.dial(), listener.dial()
        await asked.send_all(handshake())
        await wait_all_tasks_blocked()
        await server.aclose()
        assert trio.current_time() == 0
        for client in (silent, asked):
            assert await client.receive_some() == b""
            await client.aclose()
    assert caplog.records == []


@pytest.mark.parametrize("turns", range(6))
async def test_who_comes_in_the_very_moment_is_hung_up_on(autojump_clock: MockClock, turns: int) -> None:
    async with serving(echo) as (server, listener):
        clients = [listener.dial() for _ in range(5)]
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        await server.aclose()
        assert trio.current_time() == 0
        for client in clients:
            with suppress(trio.BrokenResourceError), trio.fail_after(1):  # never accepted, it is reset
                assert await client.receive_some() == b""
            await client.aclose()


async def test_no_task_is_left(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with serving(echo) as (_, listener):
        async with dialing(listener) as ws:
            await ws.send("hello")
            await ws.receive()
        client = await call(listener.dial())
        client.reset()
        listener.dial()
        await (await listener.open_stream()).aclose()
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    await trio.sleep(1)  # the clock of all sockets stays a moment
    assert trio.lowlevel.current_statistics().tasks_living == before


# ------------------------------------------------------------------------------------ aclose, and again


async def test_closing_inside_the_block_does_not_cancel_the_block(autojump_clock: MockClock) -> None:
    async with serving(echo) as (server, listener):
        client = await call(listener.dial())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear_close, client)
            await server.aclose()
        await trio.sleep(1)
        await server.wait_closed()
        await server.aclose()
        await server.aclose(0)
        with pytest.raises(ConnectionRefusedError):
            listener.dial()
    assert trio.current_time() == 1


async def test_of_several_graces_at_once_the_shortest_counts(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def close(after: float, grace: float) -> None:
        await trio.sleep(after)
        await server.aclose(grace)
        ended.append(trio.current_time())

    async with serving(stay, close_timeout=None) as (server, listener):
        client = await call(listener.dial())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, 0, 60)
            nursery.start_soon(close, 1, 10)
            nursery.start_soon(close, 2, 30)
        assert ended == [11, 11, 11]
        client.drop()


async def test_a_cancelled_close_closes_at_once(autojump_clock: MockClock) -> None:
    was_cancelled = trio.Event()

    async def handle(_ws: ServerWebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            was_cancelled.set()

    async with serving(handle) as (server, listener):
        client = await call(listener.dial())
        with trio.move_on_after(2):
            await server.aclose(grace=60)
        await was_cancelled.wait()
        assert trio.current_time() == 2
        with trio.fail_after(10):
            await server.wait_closed()
        client.drop()


async def test_a_handler_may_close_its_server(autojump_clock: MockClock) -> None:
    ended: list[tuple[str, float]] = []

    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/stop":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.aclose)
            await server.aclose()
            assert ws.state.value is not ReadyState.OPEN
            ended.append(("closer", trio.current_time()))
            await trio.sleep(1)  # it goes on: nobody cancels it
        else:
            await ws.wait_closed()
            await trio.sleep(2)
        ended.append((ws.request.path, trio.current_time()))

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(lambda **status: serve_ws(handle, listeners=[listener], **status))
        async with dialing(listener) as other, dialing(listener, "/stop") as stopper:
            assert (await other.wait_closed()).code == 1001
            assert (await stopper.wait_closed()).code == 1001
        await server.wait_closed()
        assert trio.current_time() == 2
    assert ended == [("closer", 0), ("/stop", 1), ("/", 2)]


async def test_a_handler_that_closes_its_server_and_stays_is_cancelled_after_the_grace(
    autojump_clock: MockClock,
) -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        await server.aclose(grace=3)
        await trio.sleep_forever()

    async with serving(handle) as (server, listener):
        client = await call(listener.dial())
        await server.wait_closed()
        assert trio.current_time() == 3
        client.drop()


# ------------------------------------------------------------------------------------ cancelled


async def test_cancelled_it_cancels_handlers_at_once_and_clients_are_told(autojump_clock: MockClock) -> None:
    cancelled: list[float] = []
    codes: list[tuple[int, float]] = []

    async def handle(ws: ServerWebSocket) -> None:
        try:
            if ws.request.path == "/":
                await echo(ws)
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(2) as scope:
            async with serving(handle) as (_, listener):
                for path in ("/", "/asleep", "/"):
                    nursery.start_soon(listen, await call(listener.dial(), path), codes)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == 2
    assert cancelled == [2] * 3
    assert codes == [(1001, 2)] * 3


@pytest.mark.parametrize("close_timeout", [1.0, None])
async def test_cancelled_it_waits_for_clients_who_never_read_only_so_long(
    autojump_clock: MockClock, close_timeout: float | None
) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.send(b"x" * 1000)
        await trio.sleep_forever()

    with trio.move_on_after(1):
        async with serving(handle, 64, close_timeout=close_timeout) as (_, listener):
            clients = [await call(listener.dial()) for _ in range(3)]
            await trio.sleep_forever()
    assert trio.current_time() <= 6
    for client in clients:
        client.drop()


async def test_cancelled_what_a_handler_that_has_returned_left_behind_still_goes_out(
    autojump_clock: MockClock,
) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.send(b"x" * 1000)

    async def read() -> None:
        await trio.sleep(2)
        codes.append(await hear_close(client))

    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            async with serving(handle, 64) as (_, listener):
                client = await call(listener.dial())
                nursery.start_soon(read)
                await trio.sleep_forever()
    assert codes == [1000]
    assert client.frames[0].payload == b"x" * 1000


async def test_an_error_beside_a_handler_s_cancellation_is_told_and_does_not_leave(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    async def handle(_ws: ServerWebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)

    codes: list[tuple[int, float]] = []
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            async with serving(handle) as (_, listener):
                nursery.start_soon(listen, await call(listener.dial()), codes)
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert codes == [(1001, 1)]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)


async def test_a_handler_s_nursery_that_is_cancelled_is_no_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    async with serving(handle) as (server, listener):
        client = await call(listener.dial())
        await server.aclose(grace=1)
        client.drop()
    assert caplog.records == []


# ------------------------------------------------------------------------------------ left by an error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        ExceptionGroup("mine", [ValueError("one")]),
        ExceptionGroup("mine", [ValueError("one"), ExceptionGroup("two", [KeyError()])]),
        StopIteration("mine"),
        StopAsyncIteration("mine"),
        trio.ClosedResourceError("mine"),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=repr,
)
async def test_the_block_s_own_error_comes_out_as_it_is(autojump_clock: MockClock, error: BaseException) -> None:
    codes: list[tuple[int, float]] = []
    cause, context = error.__cause__, error.__context__
    async with trio.open_nursery() as nursery:
        with pytest.raises(type(error)) as caught:
            async with create_ws_server(echo, listeners=[listener := MemoryListener()]):
                nursery.start_soon(listen, await call(listener.dial()), codes)
                raise error
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (cause, context)
    assert codes == [(1001, 0)]
    assert await listener.count_open() == 0


async def test_a_cancellation_on_top_of_the_block_s_error_does_not_hide_it(autojump_clock: MockClock) -> None:
    error = ValueError("mine")
    with trio.move_on_after(1), pytest.raises(ValueError, match="mine") as caught:
        async with serving(stay) as (_, listener):
            client = await call(listener.dial())
            raise error
    assert caught.value is error
    assert trio.current_time() <= 6
    client.drop()


async def test_a_block_may_be_left_by_break_and_by_return(autojump_clock: MockClock) -> None:
    async def leave() -> str:
        async with serving(echo) as (_, listener):
            await call(listener.dial())
            return "done"

    for _ in range(2):
        async with serving(echo):
            break
    with trio.fail_after(20):
        assert await leave() == "done"


# ------------------------------------------------------------------------------------ serve_ws


async def test_serve_ws_gives_its_server_once_it_listens_and_ends_when_that_is_closed(
    autojump_clock: MockClock,
) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **status: serve_ws(echo, listeners=[listener], **status))
        assert isinstance(server, Server)
        async with dialing(listener) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        await server.aclose()


async def test_serve_ws_listens_on_tcp_and_needs_nobody_who_starts_it() -> None:
    with trio.move_on_after(0.05) as scope:
        await serve_ws(echo)
    assert scope.cancelled_caught


async def test_serve_ws_cancelled_tells_its_clients(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    codes: list[tuple[int, float]] = []
    async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
        await nursery.start(lambda **status: serve_ws(stay, listeners=[listener], **status))
        clients.start_soon(listen, await call(listener.dial()), codes)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert codes == [(1001, 1)]
    assert await listener.count_open() == 0


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_serve_ws_ends_too_when_the_close_of_its_server_is_cancelled(autojump_clock: MockClock, how: str) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(lambda **status: serve_ws(stay, listeners=[listener], **status))
        client = await call(listener.dial())
        with trio.CancelScope() as scope:
            if how == "cancelled":
                scope.cancel()
            scope.deadline = trio.current_time() + 1
            await server.aclose(60)
        assert scope.cancelled_caught
    assert trio.current_time() <= 6
    client.drop()


async def test_serve_ws_ends_when_its_listeners_are_closed_and_the_last_client_has_gone(
    autojump_clock: MockClock,
) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(lambda **status: serve_ws(echo, listeners=[listener], **status))
        async with dialing(listener) as ws:
            await ws.wait_open()
            await listener.aclose()
            await ws.send("hello")
            assert await ws.receive() == "hello"
            assert len(server.connections) == 1
    assert trio.current_time() < 1


async def test_a_reconnecting_client_outlives_a_server(autojump_clock: MockClock) -> None:
    doors = [MemoryListener() for _ in range(2)]
    current = 0

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        return await doors[current].open_stream(host, port)

    async with create_reconnecting_ws(URL, open_stream=open_stream, delay=1.0) as ws:
        for current in range(2):
            async with create_ws_server(echo, listeners=[doors[current]]):
                await ws.send(f"{current}")
                assert await ws.receive() == f"{current}"
        await ws.aclose()


async def test_a_client_of_a_closing_server_is_closed_to_sends_of_its_handler(autojump_clock: MockClock) -> None:
    seen: list[type[BaseException]] = []

    async def handle(ws: ServerWebSocket) -> None:
        await trio.sleep(1)
        try:
            await ws.send("too late")
        except trio.ClosedResourceError as error:
            seen.append(type(error))

    async with serving(handle, outbox=Buffer(max_messages=1)) as (_, listener):
        client = await call(listener.dial())
    assert seen == [trio.ClosedResourceError]
    assert await hear_close(client, answer=False) == 1001
    client.drop()
