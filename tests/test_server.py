"""A server and its handlers, over memory: what a handler gets, and what becomes of it when it ends in whatever way."""

from __future__ import annotations

import errno
import logging
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.listeners import HOST, MemoryListener, call, dialing, handshake, hear_close, read_answer, say, serving
from trio_wsprim import (
    Buffer,
    CloseEvent,
    ConnectionClosed,
    DropEvent,
    EndEvent,
    Event,
    HeartbeatTimeout,
    MessageEvent,
    ReadyState,
    Rejection,
    Request,
    ServerWebSocket,
    Undelivered,
    WebSocket,
    create_ws_server,
    make_heartbeat_ws,
)
from trio_wsprim.testing import Peer, encode_frame

LOG = "trio_wsprim.server"


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class Recorder:
    """A handler that keeps its sockets, and lets them be."""

    def __init__(self) -> None:
        self.met: list[ServerWebSocket] = []

    async def __call__(self, ws: ServerWebSocket) -> None:
        self.met.append(ws)
        await ws.wait_closed()

    async def next(self) -> ServerWebSocket:
        await wait_all_tasks_blocked()
        return self.met[-1]


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOG and record.levelno == level]


# ------------------------------------------------------------------------------------ a handler's socket


async def test_messages_of_both_kinds_go_both_ways_in_order(autojump_clock: MockClock) -> None:
    messages: list[str | bytes] = ["hello", b"\x00\xff", "é" * 1000, b"x" * 100_000, ""]
    async with serving(echo) as (_, listener), dialing(listener) as ws:
        for message in messages:
            await ws.send(message)
        assert [await ws.receive() for _ in messages] == messages


async def test_many_clients_are_served_at_once(autojump_clock: MockClock) -> None:
    async def talk(number: int) -> None:
        async with dialing(listener) as ws:
            for each in range(20):
                await ws.send(f"{number} {each}")
            assert [await ws.receive() for _ in range(20)] == [f"{number} {each}" for each in range(20)]

    async with serving(echo) as (_, listener), trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(talk, number)


async def test_a_handler_gets_a_socket_like_any_other(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with serving(handler) as (_, listener), dialing(listener, "/there?key=secret") as client:
        await client.send("hello")
        ws = await handler.next()
        assert isinstance(ws, WebSocket)
        assert ws.state.value is ReadyState.OPEN
        assert ws.message.value == "hello"
        assert await ws.receive_many() == ["hello"]
        assert await ws.ping() == 0 == ws.latency
        assert ws.response_headers == ()
        assert ws.undelivered == ()
        assert ws.url == f"ws://{HOST}/there"
        assert repr(ws) == f"<ServerWebSocket OPEN ws://{HOST}/there>"
        await ws.send(b"1234")
        await ws.flush()
        statistics = ws.statistics()
        assert (statistics.messages_sent, statistics.bytes_sent) == (1, 4)
        assert (statistics.messages_received, statistics.bytes_received) == (1, 5)
        assert (statistics.attempts, statistics.connections) == (1, 1)


async def test_a_request_tells_what_the_client_asked_for(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with (
        serving(handler) as (_, listener),
        dialing(
            listener,
            "/a%20room/?token=1%2B1&tag=a&tag=&tag=b",
            subprotocols=("v2", "v1"),
            headers=[("X-Tenant", "blue"), ("X-Tenant", "green")],
        ),
    ):
        request = (await handler.next()).request
    assert isinstance(request, Request)
    assert request.path == "/a%20room/?token=1%2B1&tag=a&tag=&tag=b"
    assert dict(request.query) == {"token": ("1+1",), "tag": ("a", "", "b")}
    assert request.subprotocols == ("v2", "v1")
    assert [value for name, value in request.headers if name == "x-tenant"] == ["blue", "green"]
    assert all(name == name.lower() for name, _ in request.headers)
    assert request.header("x-TENANT") == "blue"
    assert request.header("origin") is None
    assert request.remote is None
    assert repr(request) == "<Request '/a%20room/' from nowhere>"


async def test_headers_that_are_no_ascii_are_taken_as_they_are(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with serving(handler) as (_, listener):
        client = await call(listener.dial(), headers=[("X-Name", "Zoë")])
        assert (await handler.next()).request.header("x-name") == "Zoë"
        client.drop()


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (("v2", "v1"), ("v1", "v2"), "v2"),
        ("v1", ("v3", "v1"), "v1"),
        (("v2",), ("v1",), None),
        ((), ("v1",), None),
        (("v2",), (), None),
    ],
)
async def test_the_first_of_our_subprotocols_that_the_client_speaks_is_chosen(
    autojump_clock: MockClock, ours: str | tuple[str, ...], theirs: tuple[str, ...], chosen: str | None
) -> None:
    handler = Recorder()
    async with serving(handler, subprotocols=ours) as (_, listener), dialing(listener, subprotocols=theirs) as client:
        ws = await handler.next()
        assert (ws.subprotocol, client.subprotocol) == (chosen, chosen)


async def test_a_socket_s_events_are_those_of_any_other(autojump_clock: MockClock) -> None:
    seen: list[Event] = []

    async def watch(ws: ServerWebSocket) -> None:
        async with ws.events() as events:
            async for event in events:
                seen.append(event)

    async with serving(watch) as (_, listener), dialing(listener) as client:
        await client.send("hello")
    assert seen == [
        MessageEvent("hello"),
        CloseEvent(1000, "", clean=True, error=None, unconfirmed=None),
        EndEvent(None),
    ]


async def test_the_state_goes_from_open_to_closed(autojump_clock: MockClock) -> None:
    seen: list[ReadyState] = []

    async def watch(ws: ServerWebSocket) -> None:
        async for state in ws.state.values():
            seen.append(state)

    async with serving(watch) as (_, listener), dialing(listener):
        await wait_all_tasks_blocked()
    assert seen[0] is ReadyState.OPEN
    assert seen[-1] is ReadyState.CLOSED


async def test_without_an_inbox_subscribers_and_signals_are_fed(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def watch(ws: ServerWebSocket) -> None:
        with pytest.raises(RuntimeError):
            await ws.receive()
        async with ws.subscribe() as messages:
            async for message in messages:
                seen.append((message, ws.message.value))

    async with serving(watch, inbox=None) as (_, listener), dialing(listener) as client:
        await wait_all_tasks_blocked()
        await client.send("hello")
        await wait_all_tasks_blocked()
        await client.send("again")
    assert seen == [("hello", "hello"), ("again", "again")]


async def test_a_handler_that_does_not_read_pushes_back_on_its_client_alone(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/slow":
            await trio.sleep(60)
        await echo(ws)

    small = Buffer(max_messages=2)
    async with (
        serving(handle, 64, inbox=small) as (_, listener),
        dialing(listener) as quick,
        dialing(listener, "/slow", outbox=small) as slow,
    ):
        with trio.move_on_after(1) as scope:
            while True:
                await slow.send(b"x" * 50)
        assert scope.cancelled_caught
        await quick.send("still here")
        assert await quick.receive() == "still here"
        await slow.aclose()


async def test_a_heartbeat_finds_a_dead_client(autojump_clock: MockClock) -> None:
    ends: list[tuple[float, type[BaseException]]] = []

    async def handle(ws: ServerWebSocket) -> None:
        make_heartbeat_ws(ws, message=None, interval=1.0, wait=1.5)
        try:
            await ws.receive()
        except ConnectionClosed as error:
            ends.append((trio.current_time(), type(error)))
            raise

    async with serving(handle) as (_, listener), dialing(listener) as lively:
        dead = await call(listener.dial())
        await trio.sleep(60)
        assert ends == [(2.5, HeartbeatTimeout)]
        assert lively.state.value is ReadyState.OPEN
        dead.drop()


async def test_a_message_over_the_limit_ends_its_connection_with_1009(autojump_clock: MockClock) -> None:
    codes: list[int] = []

    async def handle(ws: ServerWebSocket) -> None:
        try:
            await ws.receive()
        except ConnectionClosed as error:
            codes.append(error.code)
            raise

    async with serving(handle, max_message_bytes=10) as (_, listener):
        with pytest.raises(ConnectionClosed) as caught:
            async with dialing(listener) as client:
                await client.send("x" * 11)
                await client.receive()
    assert caught.value.code == 1009
    assert codes == [1009]


async def test_a_handler_may_close_with_a_code_of_its_own(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.aclose(4001, "not now")
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("too late")

    async with serving(handle) as (_, listener):
        with pytest.raises(ConnectionClosed) as caught:
            async with dialing(listener) as client:
                await client.receive()
    assert (caught.value.code, caught.value.reason, caught.value.clean) == (4001, "not now", True)


# ------------------------------------------------------------------------------------ a handler's end


async def test_a_handler_that_returns_closes_with_1000_after_all_that_it_has_sent(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        for number in range(500):
            await ws.send(f"{number}")

    async with serving(handle, 256) as (server, listener), dialing(listener) as client:
        assert [message async for message in client] == [f"{number}" for number in range(500)]
        end = await client.wait_closed()
        assert (end.code, end.clean) == (1000, True)
        await wait_all_tasks_blocked()
        assert server.connections == frozenset()


async def test_a_handler_that_raises_is_told_and_closes_with_1011_and_the_server_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.send("first")
        if ws.request.path.startswith("/bad"):
            raise KeyError("oh")
        await echo(ws)

    async with serving(handle) as (_, listener), dialing(listener) as good:
        assert await good.receive() == "first"
        with pytest.raises(ConnectionClosed) as caught:
            async with dialing(listener, "/bad?token=secret") as bad:
                assert await bad.receive() == "first"
                await bad.receive()
        assert (caught.value.code, caught.value.reason, caught.value.clean) == (1011, "", True)
        await good.send("hello")
        assert await good.receive() == "hello"
        async with dialing(listener) as another:
            assert await another.receive() == "first"
    (record,) = told(caplog, logging.ERROR)
    assert record.getMessage() == "<Request '/bad' from nowhere>: the handler raised"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
    assert "secret" not in caplog.text


async def test_handlers_that_raise_by_the_hundred_do_not_flood_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        raise ValueError

    async def suffer() -> None:
        assert await hear_close(await call(listener.dial())) == 1011

    async with serving(handle) as (_, listener):
        for _ in range(100):
            await suffer()
        assert len(told(caplog, logging.ERROR)) == 10
        await trio.sleep(10)
        await suffer()
    (summary,) = told(caplog, logging.WARNING)
    assert summary.getMessage().startswith("90 more in the last ")
    assert len(told(caplog, logging.ERROR)) == 11


async def test_strangers_who_are_turned_away_do_not_keep_a_handler_s_error_out_of_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        raise ValueError

    caplog.set_level(logging.INFO, LOG)
    async with serving(handle) as (_, listener):
        for _ in range(50):
            stranger = listener.dial()
            await stranger.send_all(b"GET / HTTP/1.1\r\n")
            await stranger.aclose()
        await wait_all_tasks_blocked()
        assert await hear_close(await call(listener.dial())) == 1011
    assert len(told(caplog, logging.INFO)) == 10
    assert len(told(caplog, logging.ERROR)) == 1


def a_group(*errors: Exception) -> Exception:
    return ExceptionGroup("of a nursery", errors)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ConnectionClosed(1006), logging.DEBUG),
        (trio.ClosedResourceError("ours"), logging.DEBUG),
        (trio.EndOfChannel("normal"), logging.DEBUG),
        (a_group(ConnectionClosed(1006), a_group(trio.EndOfChannel())), logging.DEBUG),
        (a_group(ConnectionClosed(1006), ValueError("beside it")), logging.ERROR),
        (ValueError("after it"), logging.ERROR),
    ],
)
async def test_what_a_handler_raises_because_its_connection_has_ended_is_no_error_of_its(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: Exception, level: int
) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.wait_closed()
        raise error

    caplog.set_level(logging.DEBUG, LOG)
    async with serving(handle) as (_, listener):
        client = await call(listener.dial())
        client.reset()
        await wait_all_tasks_blocked()
    (record,) = [record for record in caplog.records if record.name == LOG]
    assert record.levelno == level
    assert (record.exc_info is not None) is (level == logging.ERROR)


@pytest.mark.parametrize("error", [ConnectionClosed(1006), trio.ClosedResourceError(), trio.EndOfChannel()])
async def test_what_another_socket_has_raised_is_an_error_while_this_one_is_open(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        raise error

    async with serving(handle) as (_, listener):
        assert await hear_close(await call(listener.dial())) == 1011
    assert len(told(caplog, logging.ERROR)) == 1


async def test_a_port_in_use_is_named() -> None:
    async def handle(_ws: ServerWebSocket) -> None:
        raise AssertionError

    async with create_ws_server(handle) as server:
        with pytest.raises(OSError, match=str(errno.EADDRINUSE)) as caught:
            async with create_ws_server(handle, port=server.port):
                raise AssertionError
    assert caught.value.__notes__ == [f"while listening on 127.0.0.1, port {server.port}"]


async def test_a_handler_that_is_no_async_function_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    handle = cast("Any", lambda _ws: None)
    async with serving(handle) as (_, listener):
        assert await hear_close(await call(listener.dial())) == 1011
    (record,) = told(caplog, logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


async def test_a_group_that_a_handler_s_nursery_raises_is_told_as_it_is(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def handle(_ws: ServerWebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, ValueError("one"))
            nursery.start_soon(fail, KeyError("two"))

    async with serving(handle) as (_, listener):
        assert await hear_close(await call(listener.dial())) == 1011
    (record,) = told(caplog, logging.ERROR)
    assert record.exc_info is not None
    group = record.exc_info[1]
    assert isinstance(group, ExceptionGroup)
    assert {type(each) for each in group.exceptions} == {ValueError, KeyError}


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["handler", "nursery", "authorize"])
async def test_what_is_meant_to_end_the_program_ends_the_server_and_clients_are_told(
    autojump_clock: MockClock, kind: type[BaseException], place: str
) -> None:
    error = kind()

    async def fail() -> None:
        raise error

    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/end":
            if place == "handler":
                raise error
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
        await trio.sleep_forever()

    async def authorize(request: Request) -> Rejection | None:
        if place == "authorize" and request.path == "/end":
            raise error
        return None

    codes: list[int] = []

    async def listen() -> None:
        codes.append(await hear_close(bystander))

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - which one is looked at below
            async with create_ws_server(handle, listeners=[listener], authorize=authorize):
                bystander = await call(listener.dial())
                nursery.start_soon(listen)
                async with dialing(listener, "/end"):
                    await trio.sleep_forever()
    raised = caught.value
    while isinstance(raised, BaseExceptionGroup):
        assert len(raised.exceptions) == 1
        assert place == "nursery", "no group of ours"
        raised = raised.exceptions[0]
    assert raised is error
    assert codes == [1001]
    assert await listener.count_open() == 0


async def test_a_message_that_did_not_arrive_is_told_in_undelivered_and_counted_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sockets: list[ServerWebSocket] = []

    async def handle(ws: ServerWebSocket) -> None:
        sockets.append(ws)
        for number in range(20):
            await ws.send(f"{number}" * 10)

    caplog.set_level(logging.INFO, LOG)
    async with serving(handle, 16) as (_, listener):
        client = await call(listener.dial(), "/?secret")
        await wait_all_tasks_blocked()
        client.reset()
        await wait_all_tasks_blocked()
    left = sockets[0].undelivered
    assert left[-1] == Undelivered("19" * 10, "unsent")
    (record,) = told(caplog, logging.INFO)
    assert record.getMessage() == f"<Request '/' from nowhere>: {len(left)} messages did not arrive"


async def test_who_closes_by_himself_takes_care_of_what_did_not_arrive(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sockets: list[ServerWebSocket] = []

    async def handle(ws: ServerWebSocket) -> None:
        sockets.append(ws)
        await ws.send("x" * 100)
        await ws.aclose()

    caplog.set_level(logging.INFO, LOG)
    async with serving(handle, 16) as (_, listener):
        client = await call(listener.dial())
        await trio.sleep(6)
        assert len(sockets[0].undelivered) == 1
        client.drop()
    assert told(caplog, logging.INFO) == []


# ------------------------------------------------------------------------------------ the server


async def test_connections_are_those_that_are_open(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with serving(handler) as (server, listener):
        assert server.connections == frozenset()
        asked = listener.dial()
        await wait_all_tasks_blocked()
        assert server.connections == frozenset()
        client = await call(asked)
        assert server.connections == {await handler.next()}
        assert isinstance(server.connections, frozenset)
        assert repr(server) == "<Server  with 1 connections>"
        await client.send_close(1000)  # unmasked: a breach
        await wait_all_tasks_blocked()
        assert server.connections == frozenset()
        client.drop()


async def test_a_connection_whose_handler_goes_on_is_none_any_more(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.wait_closed()
        await trio.sleep(3)

    async with serving(handle) as (server, listener):
        async with dialing(listener):
            await wait_all_tasks_blocked()
            assert len(server.connections) == 1
        assert server.connections == frozenset()


async def test_over_a_listener_without_an_address_there_is_neither_port_nor_url() -> None:
    async with serving(echo) as (server, _):
        assert (server.port, server.url) == (0, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
async def test_port_and_url_say_where_it_is_reached(host: str | None) -> None:
    async with create_ws_server(echo, host) as server:
        assert server.port > 0
        assert server.url.startswith("ws://")
        assert server.url.endswith(f":{server.port}/")
        assert repr(server) == f"<Server {server.url} with 0 connections>"


async def test_the_url_of_an_ipv6_listener_has_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_wsprim._server.find_place", lambda _: ("::1", 8080))
    async with create_ws_server(echo, listeners=[MemoryListener()]) as server:
        assert server.url == "ws://[::1]:8080/"


async def test_each_of_several_listeners_is_accepted_from(autojump_clock: MockClock) -> None:
    doors = [MemoryListener() for _ in range(3)]
    async with create_ws_server(echo, listeners=doors):
        for door in doors:
            async with dialing(door) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
    for door in doors:
        with pytest.raises(ConnectionRefusedError):
            door.dial()


async def test_an_accept_that_fails_is_tried_again(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(echo) as (_, listener):
        for _ in range(5):
            listener.fail(OSError(24, "too many open files"))
        async with dialing(listener) as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
    assert len(told(caplog, logging.ERROR)) == 5


# ------------------------------------------------------------------------------------ one client never touches another


@pytest.mark.parametrize("harm", ["garbage", "reset", "drop", "unmasked", "bad text", "half a frame", "ping flood"])
async def test_what_one_client_does_is_nothing_to_another(autojump_clock: MockClock, harm: str) -> None:
    async with serving(echo, handshake_timeout=1.0) as (_, listener), dialing(listener) as bystander:
        client = await call(listener.dial())
        match harm:
            case "garbage":
                await client.send_raw(b"\xff" * 100)
            case "reset":
                client.reset()
            case "drop":
                client.drop()
            case "unmasked":
                await client.send("hello")
            case "bad text":
                await client.send_frame(1, b"\xc3\x28", masked=True)
            case "half a frame":
                await client.send_raw(b"\x81\xfe")
                client.drop()
            case _:
                for _ in range(1000):
                    await client.send_frame(9, b"x", masked=True)
        await wait_all_tasks_blocked()
        await bystander.send("still here")
        assert await bystander.receive() == "still here"
        client.drop()


async def test_a_ping_that_comes_after_the_close_harms_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        if ws.request.path == "/":
            await echo(ws)

    async with serving(handle) as (_, listener), dialing(listener) as bystander:
        client = await call(listener.dial(), "/done")
        await client.receive_frame()  # its close
        for _ in range(3):
            await client.send_frame(9, b"late", masked=True)
        await say(client, "later still")
        await client.send_frame(8, b"\x03\xe8", masked=True)
        assert await client.stream.receive_some() == b""
        client.drop()
        await bystander.send("still here")
        assert await bystander.receive() == "still here"
    assert caplog.records == []


async def test_what_comes_with_the_handshake_is_received(autojump_clock: MockClock) -> None:
    async with serving(echo) as (_, listener):
        stream = listener.dial()
        await stream.send_all(handshake() + encode_frame(1, b"early", masked=True))
        assert (await read_answer(stream)).status == 101
        client = Peer(stream)
        assert (await client.receive_frame()).payload == b"early"
        client.drop()


async def test_what_the_outbox_drops_is_told_to_the_handler_s_socket(autojump_clock: MockClock) -> None:
    drops: list[Event] = []

    async def handle(ws: ServerWebSocket) -> None:
        async with ws.events() as events:
            for number in range(10):
                await ws.send(f"{number}" * 20)
                await wait_all_tasks_blocked()
            async for event in events:
                drops.append(event)

    options = Buffer(max_messages=2, when_full="drop_newest")
    async with serving(handle, 8, outbox=options) as (_, listener):
        client = await call(listener.dial())
        await trio.sleep(1)
        client.drop()
    assert [each.message for each in drops if isinstance(each, DropEvent)] == [f"{n}" * 20 for n in range(2, 10)]
