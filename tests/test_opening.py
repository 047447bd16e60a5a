"""SPEC, section 1: the openers, and what they take."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim
from trio_wsprim import (
    Backoff,
    Buffer,
    ConnectionFailed,
    ConnectionRejected,
    ReadyState,
    ReconnectingWebSocket,
    RetriesExhausted,
    TrioWebsocketTransport,
    WebSocket,
    create_reconnecting_ws,
    create_ws,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork

from .sockets import URL, accept

Opener = Callable[..., WebSocket]


def make_plain(nursery: trio.Nursery, *args: Any, **options: Any) -> WebSocket:
    return make_ws(nursery, *args, **options)


def make_reconnecting(nursery: trio.Nursery, *args: Any, **options: Any) -> WebSocket:
    return make_reconnecting_ws(nursery, *args, **options)


both = pytest.mark.parametrize("make", [make_plain, make_reconnecting])


@both
async def test_make_returns_at_once_while_connecting(make: Opener, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make(nursery, URL, open_stream=network.open_stream)
        assert int(ws.state.value) == 0
        assert network.dials == []
        assert ws.url == URL
        assert (ws.subprotocol, ws.response_headers, ws.latency) == (None, (), None)
        peer = await accept(network, ws)
        assert ws.state.value is ReadyState.OPEN
        nursery.start_soon(peer.serve_echo)
        await ws.aclose()


@pytest.mark.parametrize("create", [create_ws, create_reconnecting_ws])
async def test_create_enters_while_connecting(create: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create(URL, open_stream=network.open_stream) as ws:
        assert ws.state.value is ReadyState.CONNECTING
        assert isinstance(ws, trio.abc.Channel)
        assert isinstance(ws, WebSocket)
        await accept(network, ws)


async def test_what_is_sent_before_it_is_open_goes_out_in_order(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(3)
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        for number in range(20):
            await ws.send(str(number))
        ws.send_nowait(b"last")
        assert ws.statistics().messages_buffered == 21
        peer = await network.accept()
        await peer.accept()
        assert await peer.receive_all(21) == [*map(str, range(20)), b"last"]


async def test_wait_open_raises_what_went_wrong(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    cause = ConnectionRefusedError("nobody there")
    network.refuse(error=cause)
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert caught.value.__cause__ is cause
        with pytest.raises(ConnectionFailed):  # and again
            await ws.wait_open()


async def test_wait_open_after_our_close_is_our_doing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ws.wait_open()

            await wait_all_tasks_blocked()
            await ws.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ws.wait_open()


async def _token() -> str:
    await trio.sleep(1)
    return "ws://example.test/async"


async def test_functions_are_asked_anew_for_every_attempt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    asked: list[str] = []

    def url() -> str:
        asked.append("url")
        return f"ws://example.test/{len(asked)}"

    async def headers() -> list[tuple[str, str]]:
        await trio.sleep(0.5)
        asked.append("headers")
        return [("X-Token", str(len(asked)))]

    def subprotocols() -> list[str]:
        asked.append("subprotocols")
        return [f"v{len(asked)}"]

    async with create_reconnecting_ws(
        url, subprotocols, headers=headers, open_stream=network.open_stream, delay=1.0
    ) as ws:
        assert ws.url == ""
        for number in (0, 3):
            peer = await network.accept()
            request = await peer.read_request()
            assert request.path == f"/{number + 1}"
            assert request.header("x-token") == str(number + 2)
            assert request.header("sec-websocket-protocol") == f"v{number + 3}"
            await peer.accept(f"v{number + 3}")
            await ws.wait_open()
            assert ws.url == f"ws://example.test/{number + 1}"
            assert ws.subprotocol == f"v{number + 3}"
            peer.drop()
    assert asked == ["url", "headers", "subprotocols"] * 2


@pytest.mark.parametrize("which", ["url", "headers", "subprotocols"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_raises_fails_the_attempt(which: str, is_async: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    oops = LookupError("no token")
    values: dict[str, object] = {"url": URL, "headers": (), "subprotocols": ()}
    good = values[which]
    answers: list[object] = [oops, good]

    def function() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def async_function() -> object:
        return function()

    values[which] = async_function if is_async else function
    options = cast("Any", values)
    async with create_ws(options.pop("url"), open_stream=network.open_stream, **options) as ws:
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert caught.value.__cause__ is oops
        assert "no token" not in str(caught.value)
    assert network.dials == []

    answers[:] = [oops, good]
    values["url"] = values.get("url", URL) if which != "url" else (async_function if is_async else function)
    values["open_stream"] = network.open_stream
    async with create_reconnecting_ws(**cast("Any", values), delay=1.0) as ws:
        await accept(network, ws)
        assert ws.statistics().attempts == 2


@pytest.mark.parametrize("which", ["url", "headers", "subprotocols", "setup", "open_stream"])
async def test_one_that_hangs_is_bounded_by_connect_timeout(which: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def hang(*_: object) -> Any:
        await trio.sleep_forever()

    given: dict[str, Any] = {"url": URL, "open_stream": network.open_stream, which: hang}
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, **given, connect_timeout=7.0)
        if which == "setup":
            peer = await network.accept()
            await peer.accept()
        begun = trio.current_time()
        with pytest.raises(ConnectionFailed) as caught:
            await ws.wait_open()
        assert trio.current_time() - begun == pytest.approx(7)
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
    assert network.live == 0


async def test_connect_timeout_covers_all_stages_together(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.delay(2)

    async def headers() -> list[tuple[str, str]]:
        await trio.sleep(2)
        return []

    async def setup(session: object) -> None:
        await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        ws = make_ws(
            nursery, _token, headers=headers, setup=setup, open_stream=network.open_stream, connect_timeout=6.5
        )
        peer = await network.accept()
        await peer.accept()
        with pytest.raises(ConnectionFailed):
            await ws.wait_open()
        assert trio.current_time() == pytest.approx(6.5)


async def test_the_default_connect_timeout_is_ten_seconds_and_none_is_none(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall(2)
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        end = await ws.wait_closed()
        assert trio.current_time() == pytest.approx(10)
        assert (end.code, end.clean) == (1006, False)
        assert isinstance(end.error, ConnectionFailed)
        ws = make_ws(nursery, URL, open_stream=network.open_stream, connect_timeout=None)
        with trio.move_on_after(1e6) as patience:
            await ws.wait_closed()
        assert patience.cancelled_caught
        await ws.aclose()


async def test_a_function_that_gives_nonsense_fails_the_attempt(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    for source in ({"url": lambda: "http://x"}, {"headers": lambda: [("Host", "x")]}, {"subprotocols": lambda: "a b"}):
        given: Any = {"url": URL, **source}
        async with create_ws(**given, open_stream=network.open_stream) as ws:
            with pytest.raises(ConnectionFailed) as caught:
                await ws.wait_open()
            assert isinstance(caught.value.__cause__, ValueError)
    assert network.dials == []


@pytest.mark.parametrize("opener", ["make_ws", "create_ws", "make_reconnecting_ws", "create_reconnecting_ws"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://example.test/"},
        {"url": "ws://example.test/#part"},
        {"url": "ws:///path"},
        {"url": "ws://example.test:0/"},
        {"url": "ws://example.test:65536/"},
        {"url": "ws://example.test/a b"},
        {"url": "ws://example.test/\n"},
        {"url": "ws://exämple.test/"},
        {"headers": [("Bad Name", "x")]},
        {"headers": [("X", "a\r\nb")]},
        {"headers": [("Host", "x")]},
        {"headers": [("connection", "x")]},
        {"headers": [("Upgrade", "x")]},
        {"headers": [("sec-websocket-key", "x")]},
        {"headers": [("Content-Length", "1")]},
        {"headers": [("Transfer-Encoding", "chunked")]},
        {"subprotocols": ["a b"]},
        {"subprotocols": [""]},
        {"connect_timeout": 0},
        {"connect_timeout": -1.0},
        {"connect_timeout": math.nan},
        {"close_timeout": -0.1},
        {"close_timeout": math.nan},
        {"max_message_bytes": -1},
        {"max_message_bytes": 17 * 2**20},
        {"inbox": Buffer(when_full="error")},
        {"inbox": Buffer(max_bytes=10)},
    ],
    ids=repr,
)
async def test_bad_input_is_a_value_error_at_the_call(opener: str, wrong: dict[str, Any]) -> None:
    network = MemoryNetwork()
    given = {"url": URL, "open_stream": network.open_stream, **wrong}
    async with trio.open_nursery() as nursery:
        if opener.startswith("make"):
            given["nursery"] = nursery
        with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
            getattr(trio_wsprim, opener)(**given)
    assert network.dials == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"min_uptime": -1.0},
        {"min_uptime": math.nan},
        {"max_retry_after": -1.0},
        {"delay": -1.0},
        {"delay": math.inf},
        {"resend": "all"},
    ],
    ids=repr,
)
async def test_bad_retry_options_are_value_errors_at_the_call(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
        create_reconnecting_ws(URL, **wrong)


async def test_wrong_types_are_type_errors_at_the_call() -> None:
    with pytest.raises(TypeError, match="nursery"):
        make_ws(cast("Any", URL), URL)
    with pytest.raises(TypeError, match="url"):
        create_ws(cast("Any", 5))
    with pytest.raises(TypeError):
        create_ws(URL, **cast("Any", {"no_such_option": 1}))
    with pytest.raises(TypeError):
        create_ws(URL, **cast("Any", {"retries": 1}))  # a plain socket has none
    with pytest.raises(TypeError, match="setup"):
        create_ws(URL, setup=cast("Any", 5))


async def test_a_proxy_without_its_extra_is_a_clear_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"trio-wsprim\[proxy\]"):
        create_ws(URL, proxy="http://localhost:8080")


async def test_max_message_bytes_none_takes_the_inbox_s_limit(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream, max_message_bytes=None, inbox=Buffer(max_bytes=100))
        peer = await accept(network, ws)
        await peer.send("x" * 100)
        assert await ws.receive() == "x" * 100
        await peer.send("x" * 101)
        assert (await ws.wait_closed()).code == 1009


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_never_followed(status: int, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream)
        peer = await network.accept()
        await peer.reject(status, [("Location", "ws://other.test/")])
        with pytest.raises(ConnectionRejected) as caught:
            await ws.wait_open()
        assert caught.value.status == status
        assert ("location", "ws://other.test/") in caught.value.headers
    assert len(network.dials) == 1


async def test_the_environment_s_proxies_are_never_read(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    for name in ("http_proxy", "https_proxy", "ws_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.test:1")
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream) as ws:
        await accept(network, ws)
    assert [(dial.host, dial.port) for dial in network.dials] == [("example.test", 80)]


async def test_a_transport_can_be_pinned(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws(URL, open_stream=network.open_stream, transport=TrioWebsocketTransport()) as ws:
        peer = await network.accept()
        await peer.accept(headers=[("X-Answer", "Yes")])
        await ws.wait_open()
        assert ("x-answer", "Yes") in ws.response_headers


@pytest.mark.parametrize(
    ("opener", "defaults"),
    [
        ("make_heartbeat_ws", {"message": "ping", "interval": 1.0, "wait": 1.5, "reply": None}),
        ("make_ws", {"subprotocols": ()}),
        ("create_ws", {"subprotocols": ()}),
        ("make_reconnecting_ws", {"subprotocols": ()}),
        ("create_reconnecting_ws", {"subprotocols": ()}),
    ],
)
def test_defaults_are_as_documented(opener: str, defaults: dict[str, object]) -> None:
    parameters = inspect.signature(getattr(trio_wsprim, opener)).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


async def test_a_fixed_delay_may_be_a_number(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(2)
    async with trio.open_nursery() as nursery:
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=3)
        await accept(network, ws)
        nursery.cancel_scope.cancel()
    assert [dial.time for dial in network.dials] == [0, 3, 6]


async def test_what_comes_back_is_of_the_right_class(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse(9)
    async with trio.open_nursery() as nursery:
        plain = make_ws(nursery, URL, open_stream=network.open_stream)
        ws = make_reconnecting_ws(nursery, URL, open_stream=network.open_stream, delay=Backoff(), retries=1)
        assert isinstance(ws, ReconnectingWebSocket)
        assert not isinstance(plain, ReconnectingWebSocket)
        with pytest.raises(RetriesExhausted):
            await ws.wait_open()


async def test_the_coroutine_of_an_async_callable_object_is_awaited(autojump_clock: MockClock) -> None:
    class Source:
        def __call__(self) -> Awaitable[str]:
            return _token()

    network = MemoryNetwork()
    async with create_ws(Source(), open_stream=network.open_stream) as ws:
        await accept(network, ws)
        assert ws.url == "ws://example.test/async"
