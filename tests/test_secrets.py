"""SPEC, section 1: user, password, query and header values are sent, and shown nowhere."""

from __future__ import annotations

import logging
import traceback
from base64 import b64encode
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim import (
    ConnectionFailed,
    ReadyState,
    WebSocketError,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
    make_reconnecting_ws,
)
from trio_wsprim.testing import MemoryNetwork

from .sockets import accept, taken

SECRETS = ("hunter2", "s3cret", "t0ken", "bearer-x", "proto-key")
SECRET_URL = "ws://s3cret:hunter2@example.test/path?auth=t0ken"
SHOWN = "ws://example.test/path?…"
HEADERS = (("X-Key", "bearer-x"),)


def assert_silent(*shown: object) -> None:
    for each in shown:
        for text in (str(each), repr(each)):
            assert not any(secret in text for secret in SECRETS), text


@pytest.fixture(autouse=True)
def _silent_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, "trio_wsprim")
    yield
    assert_silent(caplog.text)


async def test_user_and_password_become_basic_auth(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(SECRET_URL, open_stream=network.open_stream, headers=HEADERS) as ws:
        peer = await network.accept()
        request = await peer.read_request()
        assert request.header("authorization") == "Basic " + b64encode(b"s3cret:hunter2").decode()
        assert request.header("host") == "example.test"
        assert request.header("x-key") == "bearer-x"
        assert request.path == "/path?auth=t0ken"
        await peer.accept()
        await ws.wait_open()
        assert ws.url == SHOWN
        assert_silent(ws, ws.url, ws.state, ws.statistics())


async def test_an_authorization_header_of_the_user_s_own_wins(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(
        SECRET_URL, open_stream=network.open_stream, headers=[("authorization", "Bearer bearer-x")]
    ) as ws:
        peer = await network.accept()
        request = await peer.read_request()
        assert [value for name, value in request.headers if name == "authorization"] == ["Bearer bearer-x"]
        await peer.accept()
        await ws.wait_open()


async def test_neither_events_nor_errors_nor_logs_tell_them(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()

    async def setup(session: object) -> None:
        if len(network.dials) == 3:
            raise ValueError("hunter2")

    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(
            nursery,
            lambda: SECRET_URL,
            lambda: ["proto-key"],
            headers=lambda: HEADERS,
            open_stream=network.open_stream,
            delay=1.0,
            retries=4,
            connect_timeout=2,
            setup=setup,
        )
        async with ws.events() as channel:
            peer = await network.accept()
            await peer.reject(503)
            peer = await network.accept()
            await peer.accept()
            peer = await accept(network, ws)
            make_heartbeat_ws(ws, message="hunter2")
            await ws.state.wait_value(ReadyState.CLOSED)
            network.stall()
            end = await ws.wait_closed()
            events = taken(channel)
            errors = [event.error for event in events if hasattr(event, "error") and event.error]
            assert_silent(*events, *errors, end)
            with pytest.raises(WebSocketError) as caught:
                await ws.receive()
            assert_silent(caught.value, ws)
            assert len(errors) >= 8


@pytest.mark.parametrize("message", ["t0ken", b"t0ken"])
async def test_message_bodies_are_not_logged(message: str | bytes, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with create_ws("ws://example.test/", open_stream=network.open_stream, close_timeout=0) as ws:
        await ws.send(message, ttl=0)
        await ws.send(message)
        await ws.aclose()
        assert_silent(*ws.undelivered)


@pytest.mark.parametrize(
    "url",
    [
        "http://s3cret:hunter2@example.test/?t0ken",
        "ws://s3cret:hunter2@example.test/?t0ken#fragment",
        "ws://s3cret:hunter2@example.test:t0ken/",
        "ws://s3cret:hunter2@/",
        "ws://s3cret:hunter2@exa mple.test/",
        "ws://s3cret:hunt/er2@example.test/",
        "s3cret:hunter2",
    ],
)
async def test_refusals_of_urls_do_not_quote_them(url: str, autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match=" ") as caught:
        create_ws(url)
    assert_silent("".join(traceback.format_exception(caught.value)).replace(repr(url), ""), caught.value)
    network = MemoryNetwork()
    async with create_ws(lambda: url, open_stream=network.open_stream) as ws:
        with pytest.raises(ConnectionFailed) as failed:
            await ws.wait_open()
        assert_silent(failed.value, failed.value.__cause__, ws)


async def test_refusals_of_headers_and_subprotocols_do_not_quote_values(autojump_clock: MockClock) -> None:
    for wrong in ([("X-Key", "bearer-x\n")], [("X Key: bearer-x", "")], [("Host", "bearer-x")]):
        with pytest.raises(ValueError, match="header") as caught:
            create_ws("ws://example.test/", headers=wrong)
        assert_silent(caught.value)
        network = MemoryNetwork()
        async with create_ws("ws://example.test/", headers=lambda: wrong, open_stream=network.open_stream) as ws:  # noqa: B023
            with pytest.raises(ConnectionFailed) as failed:
                await ws.wait_open()
            assert_silent(failed.value, failed.value.__cause__)
    with pytest.raises(ValueError, match="subprotocol") as caught:
        create_ws("ws://example.test/", ["proto-key proto-key"])
    assert_silent(caught.value)


async def test_the_task_s_name_and_the_repr_of_what_is_not_entered_tell_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, SECRET_URL, headers=HEADERS, open_stream=network.open_stream)
        assert_silent(ws, *(task.name for task in nursery.child_tasks), *nursery.child_tasks)
        nursery.cancel_scope.cancel()
    assert_silent(create_reconnecting_ws(SECRET_URL, headers=HEADERS))
