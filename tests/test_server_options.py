"""A server's options: what is refused at the call, and who is let in."""

from __future__ import annotations

import errno
import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests import tls
from tests.listeners import HOST, ask, call, dialing, handshake, read_answer, serving
from trio_wsprim import (
    Buffer,
    ConnectionRejected,
    Rejection,
    Request,
    ServerOptions,
    ServerWebSocket,
    TrioWebsocketTransport,
    create_ws,
    create_ws_server,
    serve_ws,
)
from trio_wsprim._server_options import read_server_settings

LOG = "trio_wsprim.server"


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def no_handler(_ws: ServerWebSocket) -> None:
    raise AssertionError("nobody should have come so far")


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOG and record.levelno == level]


# ------------------------------------------------------------------------------------ at the call

WRONG: list[tuple[str, object, type[Exception]]] = [
    ("ssl_context", "yes", TypeError),
    ("ssl_context", tls.client_context(), ValueError),
    ("listeners", 5, TypeError),
    ("listeners", [], ValueError),
    ("listeners", ["tcp"], TypeError),
    ("subprotocols", ["two words"], ValueError),
    ("subprotocols", 5, TypeError),
    ("origins", "https://example.com", TypeError),
    ("origins", b"*", TypeError),
    ("origins", 5, TypeError),
    ("origins", [b"https://example.com"], TypeError),
    ("origins", ["example.com"], ValueError),
    ("origins", ["https://example.com/"], ValueError),
    ("origins", ["https://example.com/chat"], ValueError),
    ("origins", ["https://me@example.com"], ValueError),
    ("origins", ["*"], ValueError),
    ("authorize", "yes", TypeError),
    ("max_connections", 0, ValueError),
    ("max_connections", 1.5, TypeError),
    ("handshake_timeout", 0, ValueError),
    ("handshake_timeout", math.nan, ValueError),
    ("handshake_timeout", "10", TypeError),
    ("close_timeout", -1, ValueError),
    ("write_timeout", 0, ValueError),
    ("write_timeout", math.inf, ValueError),
    ("max_message_bytes", -1, ValueError),
    ("max_message_bytes", 2**25, ValueError),
    ("outbox", 5, TypeError),
    ("outbox", None, TypeError),
    ("inbox", Buffer(when_full="error"), ValueError),
    ("transport", "fast", TypeError),
    ("no_such_option", 5, TypeError),
    ("port", -1, ValueError),
    ("port", 65536, ValueError),
    ("port", "80", TypeError),
    ("port", True, TypeError),
    ("handler", None, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG, ids=lambda each: repr(each).partition(" object at")[0][:40])
async def test_what_makes_no_sense_is_refused_at_the_call_with_a_sentence(
    name: str, value: object, error: type[Exception]
) -> None:
    options: dict[str, Any] = {"handler": echo, name: value}

    with pytest.raises(error, match=r"\w+ \w+"):
        create_ws_server(**options)
    with pytest.raises(error, match=r"\w+ \w+"):
        await serve_ws(**options)


def test_defaults_are_those_of_the_contract() -> None:
    settings = read_server_settings({})

    assert (settings.ssl_context, settings.listeners, settings.subprotocols, settings.origins) == (None, None, (), None)
    assert (settings.authorize, settings.max_connections, settings.transport) == (None, None, None)
    assert settings.handshake_timeout == 10.0
    assert settings.socket.close_timeout == 5.0
    assert settings.socket.write_timeout == 30.0
    assert settings.socket.max_message_bytes == 2**20
    assert settings.socket.outbox == settings.socket.inbox == Buffer()
    assert not settings.socket.track


def test_none_for_a_limit_means_none() -> None:
    settings = read_server_settings(
        {"handshake_timeout": None, "close_timeout": None, "write_timeout": None, "max_connections": None}
    )

    assert settings.handshake_timeout is settings.socket.close_timeout is settings.socket.write_timeout is None


async def test_an_address_that_cannot_be_listened_on_is_told_on_entering() -> None:
    async with create_ws_server(echo) as server:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is looked at
            async with create_ws_server(echo, port=server.port):
                raise AssertionError("it came in")
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_transport_may_be_named(autojump_clock: MockClock) -> None:
    async with (
        serving(echo, transport=TrioWebsocketTransport()) as (_, listener),
        dialing(listener, transport=TrioWebsocketTransport()) as ws,
    ):
        await ws.send("hello")
        assert await ws.receive() == "hello"


# ------------------------------------------------------------------------------------ origins

OURS = "http://example.test"


@pytest.mark.parametrize(
    ("origins", "said", "status"),
    [
        # Those of the page's own server, whatever scheme a proxy has taken off.
        (None, [], 101),
        (None, [OURS], 101),
        (None, ["https://EXAMPLE.test"], 101),
        (None, ["http://example.test:80"], 101),
        (None, ["https://example.test:80"], 403),
        (None, ["http://example.test:8080"], 403),
        (None, ["http://evil.test"], 403),
        (None, ["http://example.test.evil.test"], 403),
        (None, ["null"], 403),
        (None, [""], 403),
        (None, [OURS, "http://evil.test"], 403),
        (None, [f"{OURS} http://evil.test"], 403),
        # Those named, and no other: not even our own.
        (["https://example.com"], [], 101),
        (["https://example.com"], ["https://example.com"], 101),
        (["https://Example.com"], ["https://EXAMPLE.com"], 101),
        (["https://example.com:443"], ["https://example.com"], 101),
        (["http://example.com:80"], ["http://example.com"], 101),
        (["http://example.com:8080"], ["http://example.com:8080"], 101),
        (["http://example.com:8080"], ["http://example.com"], 403),
        (["https://example.com"], ["http://example.com"], 403),
        (["https://example.com"], [OURS], 403),
        (["https://example.com"], ["https://example.com", "http://evil.test"], 403),
        (["https://a.test", "https://b.test"], ["https://b.test"], 101),
        ({"https://a.test": 1}.keys(), ["https://a.test"], 101),
        (["null"], ["null"], 101),
        (["chrome-extension://abc"], ["chrome-extension://abc"], 101),
        ((), [OURS], 403),
        ((), [], 101),
        # All.
        ("*", ["http://evil.test"], 101),
        ("*", ["null"], 101),
        ("*", [], 101),
    ],
)
async def test_who_may_connect_by_his_origin(
    autojump_clock: MockClock, origins: Any, said: list[str], status: int
) -> None:
    is_met = False

    async def handle(_ws: ServerWebSocket) -> None:
        nonlocal is_met
        is_met = True

    async with serving(handle, origins=origins) as (_, listener):
        stream = listener.dial()
        answer = await ask(stream, headers=[("Origin", origin) for origin in said])
        await stream.aclose()
        await wait_all_tasks_blocked()
    assert answer.status == status
    assert is_met is (status == 101)


@given(
    allowed=st.sets(st.sampled_from(["https://a.test", "https://b.test", "http://c.test:8080", "null"])),
    said=st.lists(st.sampled_from(["https://a.test", "HTTPS://B.test", "http://c.test:8080", "null", "http://d.test"])),
)
def test_every_origin_that_is_said_must_be_one_of_those_named(allowed: set[str], said: list[str]) -> None:
    statuses: list[int] = []

    async def main() -> None:
        async with serving(echo, origins=allowed) as (_, listener):
            stream = listener.dial()
            statuses.append((await ask(stream, headers=[("Origin", origin) for origin in said])).status)
            await stream.aclose()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert statuses == [101 if {origin.lower() for origin in said} <= allowed else 403]


async def test_a_foreign_origin_is_told_why_and_asked_about_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(_request: Request) -> None:
        raise AssertionError("it was asked")

    caplog.set_level(logging.INFO, LOG)
    async with serving(no_handler, authorize=authorize) as (_, listener):
        answer = await ask(listener.dial(), "/chat?token=secret", [("Origin", "http://evil.test")])
    assert (answer.status, answer.body) == (403, b"this origin may not connect\n")
    (record,) = told(caplog, logging.INFO)
    assert record.getMessage() == "<Request '/chat' from nowhere>: no connection: it was not let in"


# ------------------------------------------------------------------------------------ authorize


async def test_authorize_sees_the_request_and_lets_in(autojump_clock: MockClock) -> None:
    asked: list[Request] = []
    met: list[Request] = []

    async def authorize(request: Request) -> Rejection | None:
        await trio.sleep(3)
        asked.append(request)
        return None

    async def handle(ws: ServerWebSocket) -> None:
        met.append(ws.request)

    async with (
        serving(handle, authorize=authorize) as (_, listener),
        dialing(listener, "/room?token=1", headers=[("Authorization", "Bearer abc")]) as ws,
    ):
        await ws.wait_open()
        assert trio.current_time() == 3
    assert asked == met
    assert asked[0] is met[0]
    assert asked[0].header("authorization") == "Bearer abc"
    assert asked[0].query["token"] == ("1",)


async def test_a_rejection_is_what_the_client_is_answered(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(_request: Request) -> Rejection:
        return Rejection(401, {"WWW-Authenticate": "Bearer"}, b"who are you?")

    caplog.set_level(logging.INFO, LOG)
    async with serving(no_handler, authorize=authorize) as (server, listener):
        with pytest.raises(ConnectionRejected) as caught:
            async with dialing(listener, "/?secret") as ws:
                await ws.wait_open()
        assert server.connections == frozenset()
    assert (caught.value.status, caught.value.body) == (401, b"who are you?")
    assert ("www-authenticate", "Bearer") in caught.value.headers
    assert len(told(caplog, logging.INFO)) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [ValueError("no such token"), trio.ClosedResourceError("the database"), KeyError()])
async def test_an_authorize_that_raises_is_told_and_answered_500(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def authorize(_request: Request) -> None:
        raise error

    async with serving(no_handler, authorize=authorize) as (_, listener):
        answer = await ask(listener.dial(), "/?token=secret")
    assert (answer.status, answer.body) == (500, b"something went wrong here\n")
    (record,) = told(caplog, logging.ERROR)
    assert record.getMessage() == "<Request '/' from nowhere>: no connection"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "secret" not in caplog.text


@pytest.mark.parametrize("verdict", [True, False, 403, "no"])
async def test_an_authorize_that_gives_something_else_lets_nobody_in(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, verdict: Any
) -> None:
    async def authorize(_request: Request) -> Any:
        return verdict

    async with serving(no_handler, authorize=authorize) as (_, listener):
        assert (await ask(listener.dial())).status == 500
    (record,) = told(caplog, logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], TypeError)


async def test_an_authorize_that_takes_too_long_is_cancelled_and_the_client_hung_up_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    was_cancelled = False

    async def authorize(_request: Request) -> None:
        nonlocal was_cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            was_cancelled = True
            raise

    caplog.set_level(logging.INFO, LOG)
    async with serving(no_handler, authorize=authorize, handshake_timeout=4.0) as (_, listener):
        client = listener.dial()
        await client.send_all(handshake())
        assert await client.receive_some() == b""
        assert trio.current_time() == 4
        await client.aclose()
        await wait_all_tasks_blocked()
    assert was_cancelled
    (record,) = told(caplog, logging.INFO)
    assert record.getMessage().endswith("no connection: no handshake within 4.0 s")


async def test_a_client_that_goes_while_it_is_asked_about_is_nobody_s_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(_request: Request) -> None:
        await trio.sleep(1)

    async with serving(no_handler, authorize=authorize) as (server, listener):
        client = listener.dial()
        await client.send_all(handshake())
        await wait_all_tasks_blocked()
        client.reset()
        await trio.sleep(2)
        assert server.connections == frozenset()
    assert caplog.records == []


# ------------------------------------------------------------------------------------ handshake_timeout


def dribble(client: trio.abc.Stream) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        with suppress(trio.BrokenResourceError):
            for byte in handshake():
                await client.send_all(bytes([byte]))
                await trio.sleep(1)

    return run


@pytest.mark.parametrize("begins", ["silence", "half a request", "a byte a second"])
async def test_who_does_not_come_to_the_point_is_hung_up_on_and_others_are_not_kept(
    autojump_clock: MockClock, begins: str
) -> None:
    async with serving(echo) as (_, listener), dialing(listener) as bystander, trio.open_nursery() as nursery:
        client = listener.dial()
        if begins == "half a request":
            await client.send_all(handshake()[:50])
        elif begins == "a byte a second":
            nursery.start_soon(dribble(client))
        await trio.sleep(9.9)
        await bystander.send("hello")
        assert await bystander.receive() == "hello"
        with trio.fail_after(0.2):
            assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()
        await client.aclose()


async def test_without_a_handshake_timeout_a_client_may_take_its_time(autojump_clock: MockClock) -> None:
    async with serving(echo, handshake_timeout=None) as (_, listener):
        client = listener.dial()
        await trio.sleep(86_400)
        await client.send_all(handshake())
        assert (await read_answer(client)).status == 101
        await client.aclose()


# ------------------------------------------------------------------------------------ max_connections


async def test_who_finds_no_place_is_told_when_to_come_again(autojump_clock: MockClock) -> None:
    async with (
        serving(echo, max_connections=2) as (server, listener),
        dialing(listener),
        dialing(listener) as second,
    ):
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRejected) as caught:
            async with dialing(listener) as third:
                await third.wait_open()
        assert (caught.value.status, caught.value.retry_after) == (503, 5)
        assert caught.value.body == b"too many connections\n"
        assert len(server.connections) == 2
        await second.aclose()
        await wait_all_tasks_blocked()
        async with dialing(listener) as fourth:
            await fourth.send("hello")
            assert await fourth.receive() == "hello"


async def test_places_are_kept_for_those_who_are_asked_about(autojump_clock: MockClock) -> None:
    async def authorize(_request: Request) -> None:
        await trio.sleep(1)

    statuses: list[int] = []

    async def come() -> None:
        stream = listener.dial()
        statuses.append((await ask(stream)).status)

    async with serving(echo, authorize=authorize, max_connections=3) as (server, listener):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(come)
        assert sorted(statuses) == [101] * 3 + [503] * 7
        assert len(server.connections) == 3


@pytest.mark.parametrize("how", ["rejection", "error", "timeout"])
async def test_who_is_refused_leaves_his_place_at_once(autojump_clock: MockClock, how: str) -> None:
    async def authorize(request: Request) -> Rejection | None:
        if request.path == "/":
            return None
        if how == "rejection":
            return Rejection(403)
        if how == "error":
            raise ValueError
        await trio.sleep_forever()
        raise AssertionError

    async with serving(echo, authorize=authorize, max_connections=1, handshake_timeout=2.0) as (_, listener):
        refused = listener.dial()
        await refused.send_all(handshake("/no"))
        if how == "timeout":
            assert await refused.receive_some() == b""
        else:
            await wait_all_tasks_blocked()  # it is still there: we wait for it to read the answer
        client = await call(listener.dial())
        client.drop()
        await refused.aclose()


async def test_who_has_a_handler_has_a_place_though_his_connection_has_ended(autojump_clock: MockClock) -> None:
    async def handle(ws: ServerWebSocket) -> None:
        await ws.wait_closed()
        await trio.sleep(10)

    async with serving(handle, max_connections=1) as (server, listener):
        client = await call(listener.dial())
        client.drop()
        await trio.sleep(5)
        assert server.connections == frozenset()
        assert (await ask(listener.dial())).status == 503
        await trio.sleep(6)
        (await call(listener.dial())).drop()


async def test_of_more_than_a_hundred_at_the_door_not_even_the_request_is_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo, max_connections=2) as (_, listener):
        inside = [await call(listener.dial()) for _ in range(2)]
        waiting = [listener.dial() for _ in range(100)]
        await wait_all_tasks_blocked()
        late = [listener.dial() for _ in range(50)]
        await wait_all_tasks_blocked()
        for each in late:
            with trio.fail_after(0.1):
                assert await each.receive_some() == b""
            await each.aclose()
        assert len(told(caplog, logging.WARNING)) == 10
        for each in waiting:
            await each.send_all(handshake())
        for each in waiting:
            assert (await read_answer(each)).status == 503
            await each.aclose()
        for client in inside:
            client.drop()


async def test_a_hundred_who_say_nothing_keep_nobody_who_has_a_place(autojump_clock: MockClock) -> None:
    async with serving(echo, max_connections=5) as (_, listener), dialing(listener) as ws:
        await ws.wait_open()
        silent = [listener.dial() for _ in range(200)]
        for number in range(20):
            await trio.sleep(1)
            await ws.send(f"{number}")
            assert await ws.receive() == f"{number}"
        async with dialing(listener) as another:  # they have had their ten seconds
            await another.send("hello")
            assert await another.receive() == "hello"
        for each in silent:
            await each.aclose()


# ------------------------------------------------------------------------------------ TLS


async def test_tls_is_spoken_over_any_listener(autojump_clock: MockClock) -> None:
    async with (
        serving(echo, ssl_context=tls.server_context()) as (server, listener),
        create_ws(f"wss://{HOST}/", open_stream=listener.open_stream, ssl_context=tls.client_context()) as ws,
    ):
        await ws.send("hello")
        assert await ws.receive() == "hello"
        (theirs,) = server.connections
        assert theirs.url == f"wss://{HOST}/"
        assert server.url == ""


@pytest.mark.parametrize("begins", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_who_speaks_no_tls_is_hung_up_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, begins: bytes
) -> None:
    caplog.set_level(logging.INFO, LOG)
    async with serving(no_handler, ssl_context=tls.server_context()) as (_, listener):
        client = listener.dial()
        if begins:
            await client.send_all(begins)
        while await client.receive_some():
            pass
        assert trio.current_time() <= 10
        await client.aclose()
        await wait_all_tasks_blocked()
    (record,) = told(caplog, logging.INFO)
    assert record.getMessage().startswith("a client: no connection: no ")


def test_a_context_for_clients_is_refused_before_every_connection_fails() -> None:
    with pytest.raises(ValueError, match="one for servers"):
        create_ws_server(echo, ssl_context=ssl.create_default_context())


def test_each_option_is_tried_with_something_wrong() -> None:
    assert {name for name, _, _ in WRONG} >= set(ServerOptions.__annotations__)
