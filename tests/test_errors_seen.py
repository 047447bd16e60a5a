"""SPEC, section 5: which error each call raises, after each kind of end, and what the errors look like."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim
from trio_wsprim import (
    BufferFull,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HeartbeatTimeout,
    MessageTooBig,
    RetriesExhausted,
    UndeliveredError,
    WebSocket,
    WebSocketError,
    make_heartbeat_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept

CALLS: dict[str, Callable[[WebSocket], Awaitable[object]]] = {
    "send": lambda ws: ws.send("x"),
    "receive": lambda ws: ws.receive(),
    "receive_many": lambda ws: ws.receive_many(),
    "ping": lambda ws: ws.ping(),
    "flush": lambda ws: ws.flush(confirm=True),
    "wait_open": lambda ws: ws.wait_open(),
}
RECEIVING = ("receive", "receive_many")
WAITING = ("receive", "receive_many", "ping", "flush")


async def end_by_us(ws: WebSocket, network: MemoryNetwork) -> None:
    with trio.move_on_after(0):
        await ws.aclose()


async def end_normally(ws: WebSocket, network: MemoryNetwork) -> None:
    await PEERS[ws].send_close(1000)


async def end_with_4000(ws: WebSocket, network: MemoryNetwork) -> None:
    await PEERS[ws].send_close(4000)


async def end_by_loss(ws: WebSocket, network: MemoryNetwork) -> None:
    PEERS[ws].reset()


async def end_by_heartbeat(ws: WebSocket, network: MemoryNetwork) -> None:
    make_heartbeat_ws(ws)


async def end_too_big(ws: WebSocket, network: MemoryNetwork) -> None:
    await PEERS[ws].send("x" * 2000)


PEERS: dict[WebSocket, Any] = {}
ENDS: list[tuple[Any, Any, Any, int | None]] = [
    (end_by_us, trio.ClosedResourceError, trio.ClosedResourceError, None),
    (end_normally, trio.EndOfChannel, ConnectionClosed, 1000),
    (end_with_4000, ConnectionClosed, ConnectionClosed, 4000),
    (end_by_loss, ConnectionClosed, ConnectionClosed, 1006),
    (end_by_heartbeat, HeartbeatTimeout, HeartbeatTimeout, 1006),
    (end_too_big, ConnectionClosed, ConnectionClosed, 1009),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("end", "received", "sent", "code"), ENDS, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("is_waiting", [False, True], ids=["later", "waiting"])
async def test_every_call_tells_how_it_ended(
    call: str, end: Any, received: Any, sent: Any, code: int | None, is_waiting: bool, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    expected = received if call in RECEIVING else sent

    async def check(ws: WebSocket) -> None:
        with pytest.raises(expected) as caught:
            await CALLS[call](ws)
        assert type(caught.value) is expected
        if isinstance(caught.value, ConnectionClosed):
            assert caught.value.code == code

    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, max_message_bytes=1000)
        PEERS[ws] = peer = await accept(network, ws)
        peer.answer_pings = False
        if is_waiting and call in WAITING:
            nursery.start_soon(check, ws)
            nursery.start_soon(check, ws)
            await wait_all_tasks_blocked()
        await end(ws, network)
        await ws.wait_closed()
        await check(ws)
        await check(ws)
        del PEERS[ws]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["failed", "rejected", "exhausted"])
async def test_every_call_tells_that_no_connection_came_about(call: str, kind: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    expected = {"failed": ConnectionFailed, "rejected": ConnectionRejected, "exhausted": RetriesExhausted}[kind]

    async def check(ws: WebSocket) -> None:
        with pytest.raises(expected) as caught:
            await CALLS[call](ws)
        assert type(caught.value) is expected
        if kind != "rejected":
            assert caught.value.__cause__ is not None

    async with trio.open_nursery() as nursery:
        if kind == "exhausted":
            network.delay(1)
            network.refuse(2)
            ws: WebSocket = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, retries=1)
        else:
            network.delay(1)
            ws = make_ws(nursery, URL, open_stream=network.open_stream)
        if call != "send":
            nursery.start_soon(check, ws)
            nursery.start_soon(check, ws)
        peer = await network.accept()
        await (peer.reject(404) if kind == "rejected" else peer.aclose())
        await ws.wait_closed()
        await check(ws)
        await check(ws)


async def test_a_rejection_tells_status_headers_body_and_retry_after(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        peer = await network.accept()
        await peer.reject(503, [("Retry-After", "7"), ("X-Why", "Busy")], b"x" * 100_000)
        with pytest.raises(ConnectionRejected) as caught:
            await ws.wait_open()
        error = caught.value
        assert (error.status, error.body, error.retry_after) == (503, b"x" * 65536, 7)
        assert ("x-why", "Busy") in error.headers

        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        peer = await network.accept()
        await peer.reject(401)
        with pytest.raises(ConnectionRejected) as caught:
            await ws.wait_open()
        assert caught.value.retry_after is None


def test_the_tree_is_as_documented() -> None:
    assert issubclass(ConnectionFailed, WebSocketError)
    assert issubclass(ConnectionRejected, ConnectionFailed)
    assert issubclass(RetriesExhausted, ConnectionFailed)
    assert issubclass(ConnectionClosed, WebSocketError)
    assert issubclass(ConnectionClosed, trio.BrokenResourceError)
    assert issubclass(HeartbeatTimeout, ConnectionClosed)
    assert issubclass(MessageTooBig, WebSocketError)
    assert issubclass(MessageTooBig, ValueError)
    assert issubclass(BufferFull, WebSocketError)
    assert issubclass(BufferFull, trio.WouldBlock)
    assert issubclass(UndeliveredError, WebSocketError)
    for name in trio_wsprim.__all__:
        assert getattr(trio_wsprim, name) is not None


async def test_errors_that_were_raised_pickle(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        for end in (end_with_4000, end_by_heartbeat):
            ws = make_ws(nursery, URL, open_stream=network.open_stream)
            PEERS[ws] = await accept(network, ws)
            await end(ws, network)
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            copied = pickle.loads(pickle.dumps(caught.value))
            assert type(copied) is type(caught.value)
            assert (copied.code, copied.reason, copied.clean) == (
                caught.value.code,
                caught.value.reason,
                caught.value.clean,
            )
            assert str(copied) == str(caught.value)
            del PEERS[ws]
