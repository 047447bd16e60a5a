"""What type checkers make of the public interface. Both mypy and pyright read this; pytest only sees that it loads.

The functions below are never called: they are sentences for the checkers.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio

import trio_wsprim
from trio_wsprim import (
    Backoff,
    Buffer,
    CloseEvent,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    DropEvent,
    Event,
    MessageEvent,
    OpenEvent,
    ReadyState,
    ReconnectingWebSocket,
    Rejection,
    Request,
    Server,
    ServerWebSocket,
    Signal,
    Statistics,
    Undelivered,
    UndeliveredError,
    WebSocket,
    create_event_signal,
    create_reconnecting_ws,
    create_ws,
    create_ws_server,
    create_ws_state,
    make_heartbeat_ws,
    make_reconnecting_ws,
    make_ws,
    serve_ws,
)


def test_every_public_name_is_there() -> None:
    assert all(hasattr(trio_wsprim, name) for name in trio_wsprim.__all__)


# ------------------------------------------------------------------------------------ opening


async def openers(nursery: trio.Nursery) -> None:
    assert_type(make_ws(nursery, "ws://a/"), WebSocket)
    assert_type(make_reconnecting_ws(nursery, "ws://a/", ["chat"]), ReconnectingWebSocket)
    assert_type(create_ws("ws://a/", "chat"), AbstractAsyncContextManager[WebSocket])
    async with create_ws("ws://a/") as ws:
        assert_type(ws, WebSocket)
    async with create_reconnecting_ws("ws://a/") as reconnecting:
        assert_type(reconnecting, ReconnectingWebSocket)
        assert_type(reconnecting.reconnect(), None)


async def give_url() -> str:
    return "ws://a/"


async def give_headers() -> dict[str, str]:
    return {"Authorization": "Bearer fresh"}


def give_pairs() -> list[tuple[str, str]]:
    return [("X-A", "b")]


async def open_stream(host: str, port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream(host, port)


def stop_on_close(error: Exception) -> bool | None:
    return False if isinstance(error, ConnectionClosed) else None


def options() -> None:
    create_ws(give_url, lambda: ["chat"], headers=give_headers)
    create_ws("ws://a/", headers=give_pairs)
    create_ws("ws://a/", headers={"X-A": "b"}, open_stream=open_stream, connect_timeout=None)
    create_ws("ws://a/", outbox=Buffer(max_messages=None, when_full="drop_oldest"), inbox=None)
    create_reconnecting_ws("ws://a/", delay=3, retries=None, retry_if=stop_on_close, max_message_bytes=None)
    create_reconnecting_ws("ws://a/", delay=Backoff(jitter=0), resend="unsent", min_uptime=1)


def mistakes(nursery: trio.Nursery) -> None:
    create_ws("ws://a/", retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    create_ws("ws://a/", tmieout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    create_ws(b"ws://a/")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Buffer(when_full="later")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------------------------ a socket


async def sending(ws: WebSocket) -> None:
    assert_type(await ws.send("text"), None)
    await ws.send(b"bytes")
    await ws.send(bytearray(b"bytes"), ttl=1)
    await ws.send(memoryview(b"bytes"), ttl=None)
    assert_type(ws.send_nowait("text", ttl=0.5), None)
    assert_type(await ws.flush(confirm=True), None)
    assert_type(await ws.ping(), float)
    assert_type(await ws.aclose(1001, "bye"), None)
    assert_type(ws.undelivered, tuple[Undelivered, ...])
    await ws.send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def receiving(ws: WebSocket) -> None:
    assert_type(await ws.receive(), str | bytes)
    assert_type(ws.receive_nowait(), str | bytes)
    assert_type(await ws.receive_many(10), list[str | bytes])
    async for message in ws:
        assert_type(message, str | bytes)
    async with ws.subscribe(10, when_full="drop_newest") as messages:
        assert_type(messages, trio.MemoryReceiveChannel[str | bytes])
    async with ws.events() as events:
        assert_type(events, trio.MemoryReceiveChannel[Event])


def a_channel(ws: WebSocket) -> trio.abc.Channel[str | bytes]:
    return ws


async def looking(ws: WebSocket) -> None:
    assert_type(ws.url, str)
    assert_type(ws.subprotocol, str | None)
    assert_type(ws.response_headers, tuple[tuple[str, str], ...])
    assert_type(ws.latency, float | None)
    assert_type(ws.statistics(), Statistics)
    assert_type(ws.statistics().uptime, float | None)
    assert_type(await ws.wait_open(), None)
    assert_type(await ws.wait_closed(), CloseEvent)


# ------------------------------------------------------------------------------------ a server


async def handler(ws: ServerWebSocket) -> None:
    assert_type(ws.request, Request)
    assert_type(ws.request.path, str)
    assert_type(ws.request.headers, tuple[tuple[str, str], ...])
    assert_type(ws.request.remote, tuple[str, int] | None)
    assert_type(ws.request.query["name"], tuple[str, ...])
    assert_type(ws.request.header("origin"), str | None)
    assert_type(await ws.receive(), str | bytes)


async def any_handler(ws: WebSocket) -> int:
    return 5


async def authorize(request: Request) -> Rejection | None:
    return Rejection(403, {"X-Why": "so"}, b"no") if request.path == "/" else None


async def serving() -> None:
    assert_type(create_ws_server(handler), AbstractAsyncContextManager[Server])
    create_ws_server(any_handler, None, 80, origins=["https://a.test"], max_connections=5, inbox=None)
    create_ws_server(handler, "::1", authorize=authorize, origins="*", handshake_timeout=None, subprotocols="chat")
    create_ws_server(handler, listeners=await trio.open_tcp_listeners(0))
    create_ws_server(handler, origin="*")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    create_ws_server(handler, retries=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with create_ws_server(handler) as server:
        assert_type(server.port, int)
        assert_type(server.url, str)
        assert_type(server.connections, frozenset[ServerWebSocket])
        assert_type(await server.broadcast("text", to=server.connections), frozenset[ServerWebSocket])
        assert_type(await server.aclose(grace=1), None)
    assert_type(await serve_ws(handler, "127.0.0.1", 80, write_timeout=None), None)


# ------------------------------------------------------------------------------------ signals and events


async def signals(ws: WebSocket) -> None:
    assert_type(ws.state, Signal[ReadyState])
    assert_type(create_ws_state(ws), Signal[ReadyState])
    assert_type(ws.message, Signal[str | bytes | None])
    assert_type(create_event_signal(ws, MessageEvent), Signal[MessageEvent | None])
    assert_type(create_event_signal(ws, OpenEvent).value, OpenEvent | None)
    assert_type(ws.state.value, ReadyState)
    assert_type(await ws.state.wait_value(ReadyState.OPEN, held_for=1), ReadyState)
    assert_type(await ws.state.wait_value(lambda state: state > 1), ReadyState)
    assert_type(ws.state.values(), AsyncIterator[ReadyState])
    async for state in ws.state.values():
        assert_type(state, ReadyState)


def events(event: Event) -> None:
    match event:
        case MessageEvent(data):
            assert_type(data, str | bytes)
        case DropEvent(message, why):
            assert_type(message, str | bytes)
            assert why in {"full", "expired", "rejected"}
        case CloseEvent(unconfirmed=unconfirmed):
            assert_type(unconfirmed, tuple[str | bytes, ...] | None)
        case _:
            pass


# ------------------------------------------------------------------------------------ the rest


def heartbeats(ws: WebSocket, reconnecting: ReconnectingWebSocket) -> None:
    assert_type(make_heartbeat_ws(ws, message=None), WebSocket)
    assert_type(make_heartbeat_ws(reconnecting, message=lambda: b"beat", reply="pong"), ReconnectingWebSocket)
    make_heartbeat_ws(ws, reply=lambda message: message == "pong")


def errors(closed: ConnectionClosed, rejected: ConnectionRejected, undelivered: UndeliveredError) -> None:
    assert_type(closed.code, int)
    assert_type(closed.clean, bool)
    assert_type(rejected.retry_after, float | None)
    assert_type(rejected.body, bytes)
    assert_type(undelivered.messages, tuple[Undelivered, ...])
    base: ConnectionFailed = rejected
    broken: trio.BrokenResourceError = closed
    del base, broken


def waits(backoff: Backoff) -> None:
    assert_type(backoff.delays(), Iterator[float])
