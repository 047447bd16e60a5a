"""The recipes of the cookbook, the steps of the tutorial, and what is compared with other libraries: all of it runs."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest
import trio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.test_examples import EXAMPLES, load_file
from trio_wsprim import (
    Rejection,
    Request,
    Server,
    ServerWebSocket,
    create_reconnecting_ws,
    create_ws,
    create_ws_server,
)

PATIENCE: Final = 30


def load(name: str) -> ModuleType:
    return load_file(EXAMPLES / f"{name}.py")


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def serving(handler: Any = echo, **options: Any) -> AsyncGenerator[Server]:
    with trio.fail_after(PATIENCE):
        async with create_ws_server(handler, close_timeout=1, **options) as server:
            yield server


ECHOED: Final = {
    "cookbook/json_messages": (
        "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)\n42 EUR\n"
    ),
    "cookbook/msgspec_messages": (
        "Trade(symbol='ACME', price=12.5)\nrefused: Expected `float`, got `str` - at `$.price`\n"
    ),
    "cookbook/metrics_prometheus": "1\n",
    "cookbook/log_everything": "hello\n",
    "tutorial/one": "hello\n",
    "tutorial/two": "got 0\ngot 1\ngot 2\nwe have closed\n",
    "coming_from/ours_loop": "hello\n",
    "coming_from/ours_client": "hello\n",
    "coming_from/trio_websocket_client": "hello\n",
}
# Those that have a test of their own below, or are run by one of those.
OTHERS: Final = {
    "cookbook/client_certificate",
    "cookbook/graceful_shutdown",
    "cookbook/metrics_opentelemetry",
    "cookbook/refresh_token",
    "cookbook/request_and_answer",
    "cookbook/resubscribe",
    "cookbook/resume",
    "cookbook/several_endpoints",
    "cookbook/through_proxy",
    "cookbook/unix_socket",
    "coming_from/ours_server",
    "coming_from/trio_websocket_server",
    "coming_from/websockets_loop",
    "tutorial/three",
    "tutorial/four",
}


def test_no_recipe_is_forgotten() -> None:
    folders = ("cookbook", "tutorial", "coming_from")
    found = {f"{folder}/{path.stem}" for folder in folders for path in (EXAMPLES / folder).glob("*.py")}

    assert found == {*ECHOED, *OTHERS}


@pytest.mark.parametrize("name", ECHOED)
async def test_what_an_echo_server_answers_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        await load(name).main(server.url)

    assert capsys.readouterr().out == ECHOED[name]


async def test_the_third_step_of_the_tutorial_comes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    echoed: list[str | bytes] = []
    gone = trio.Event()
    step = load("tutorial/three")

    async def echo_two(ws: ServerWebSocket) -> None:
        async for message in ws:
            echoed.append(message)
            await ws.send(message)
            if len(echoed) == 2:
                await ws.flush(confirm=True)  # the client has the second answer before the server goes
                await ws.aclose(1001)
                gone.set()

    async def rest(_seconds: float) -> None:
        if len(echoed) == 2:
            await gone.wait()  # else what it sends next may be lost with the connection, as the page says

    # The step alone; the library goes on with trio's own.
    monkeypatch.setattr(step, "trio", SimpleNamespace(open_nursery=trio.open_nursery, sleep=rest))
    async with serving(echo_two) as server:
        await step.main(server.url, messages=3)

    assert capsys.readouterr().out.splitlines() == [
        "dialling, attempt 1",
        "open",
        "got 0",
        "got 1",
        "closed with 1001",
        "again in 0.5 s",
        "dialling, attempt 2",
        "open",
        "got 2",
        "closed with 1000",
    ]


async def test_the_fourth_step_of_the_tutorial_loses_no_order(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[list[str | bytes]] = []

    async def fall_over(ws: ServerWebSocket) -> None:
        messages: list[str | bytes] = []
        heard.append(messages)
        async for message in ws:
            messages.append(message)
            if len(heard) == 1 and len(messages) == 3:
                await ws.aclose(1011)

    async with serving(fall_over) as server:
        await load("tutorial/four").main(server.url, orders=4, pause=0)

    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"order {number} has arrived" for number in range(4)]
    assert [each[0] for each in heard] == ["subscribe prices"] * 2  # on each connection, before all else
    assert [*heard[0][1:], *heard[1][1:]][-2:] == ["order 2", "order 3"]
    assert {*heard[0], *heard[1]} == {"subscribe prices", *(f"order {number}" for number in range(4))}


async def test_the_fourth_step_of_the_tutorial_gives_up_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with create_ws_server(echo) as gone:
        url = gone.url
    step = load("tutorial/four")
    monkeypatch.setattr(step, "create_reconnecting_ws", create_reconnecting_ws_without_retries)
    with trio.fail_after(PATIENCE):
        await step.main(url)

    assert capsys.readouterr().out == "giving up: gave up after 1 failed attempt in a row\n"


def create_reconnecting_ws_without_retries(url: str, **options: Any) -> Any:
    return create_reconnecting_ws(url, **{**options, "retries": 0})


async def test_a_refused_token_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    async def authorize(request: Request) -> Rejection | None:
        return Rejection(401) if request.header("authorization") == "Bearer token-1" else None

    async def welcome(ws: ServerWebSocket) -> None:
        await ws.send(ws.request.header("authorization") or "")
        await ws.wait_closed()

    async with serving(welcome, authorize=authorize) as server:
        await load("cookbook/refresh_token").main(server.url)

    assert capsys.readouterr().out == "Bearer token-2\n"


async def test_subscriptions_are_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        await load("cookbook/resubscribe").main(server.url)

    first, second, *again = capsys.readouterr().out.splitlines()
    assert [first, second] == ["subscribe weather", "subscribe traffic"]
    assert sorted(again) == ["subscribe traffic", "subscribe weather"]


async def test_a_feed_is_resumed_after_the_last_that_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    async def tell(ws: ServerWebSocket) -> None:
        (after,) = ws.request.query["after"]
        asked.append(after)
        for number in range(max(1, int(after)), int(after) + 4):  # the last one once more, since it cannot be sure
            await ws.send(json.dumps({"id": number, "text": "x" * number}))
        await ws.flush(confirm=True)
        await ws.aclose(1012, "restarting")

    async with serving(tell) as server:
        await load("cookbook/resume").main(server.url)

    assert capsys.readouterr().out == "1 x\n2 xx\n3 xxx\n4 xxxx\n5 xxxxx\n"
    assert asked[:2] == ["0", "3"]


async def test_the_next_endpoint_is_dialled_when_one_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as server:
        async with create_ws_server(echo) as gone:
            url = gone.url
        await load("cookbook/several_endpoints").main(url, server.url)

    assert capsys.readouterr().out == "who is there?\n"


async def test_each_request_gets_its_own_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async def add(ws: ServerWebSocket) -> None:
        async for message in ws:
            request = json.loads(message)
            await ws.send(json.dumps({"id": -1, "result": None}))  # nobody waits for that one
            await ws.send(json.dumps({"id": request["id"], "result": sum(request["params"])}))

    async with serving(add) as server:
        await load("cookbook/request_and_answer").main(server.url)

    assert capsys.readouterr().out == "3 42\n"


async def test_through_a_proxy(capsys: pytest.CaptureFixture[str]) -> None:
    async def tunnel(stream: trio.SocketStream) -> None:
        """The least that is a CONNECT proxy."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        host, port = head.split()[1].decode().rsplit(":", 1)
        target = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with target, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, target)
            await pump(target, stream)
            nursery.cancel_scope.cancel()

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async with serving() as server, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, tunnel, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        await load("cookbook/through_proxy").main(server.url, f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()

    assert capsys.readouterr().out == "through the proxy\n"


async def test_over_a_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "server.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with serving(listeners=[trio.SocketListener(sock)]):
        await load("cookbook/unix_socket").main(str(path))

    assert capsys.readouterr().out == "no TCP\n"


async def test_a_certificate_says_who_we_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    ours, theirs = authority.issue_cert("client"), authority.issue_cert("127.0.0.1")
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    theirs.configure_cert(context)

    async def greet(ws: ServerWebSocket) -> None:
        await ws.send("known")
        await ws.wait_closed()

    async with serving(greet, ssl_context=context) as server:
        await load("cookbook/client_certificate").main(
            server.url, str(tmp_path / "client.pem"), str(tmp_path / "authority.pem")
        )

    assert capsys.readouterr().out == "known\n"


async def test_a_signal_ends_the_work_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[str | bytes] = []

    async def give_work(ws: ServerWebSocket) -> None:
        await ws.send("a job")
        answers.append(await ws.receive())
        os.kill(os.getpid(), signal.SIGTERM)
        async for message in ws:
            answers.append(message)

    async with serving(give_work) as server:
        await load("cookbook/graceful_shutdown").main(server.url)

    assert answers == ["a job is done"]
    assert capsys.readouterr().out == "working on a job\nSIGTERM came\nclosed, and nothing is left: ()\n"


async def test_what_opentelemetry_reads_is_what_was_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load("cookbook/metrics_opentelemetry")
    async with serving() as server:
        await recipe.main(server.url)
        reader = InMemoryMetricReader()
        monkeypatch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)  # a process has but one provider
        async with create_ws(server.url) as ws:
            recipe.export(ws, "another")
            await ws.send("counted")
            await ws.receive()
            data = reader.get_metrics_data()

    assert data is not None
    found: dict[tuple[str, object], object] = {
        (metric.name, (point.attributes or {})["socket"]): getattr(point, "value")  # noqa: B009 - no histogram
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    assert found["websocket.messages_sent", "another"] == 1
    assert found["websocket.messages_buffered", "another"] == 0
    assert ("websocket.latency", "another") not in found  # nothing was pinged
    assert capsys.readouterr().out == "counted\n"


@pytest.mark.parametrize("name", ["ours_server", "trio_websocket_server"])
async def test_the_echo_servers_echo(name: str) -> None:
    async with create_ws_server(echo) as probe:
        port = probe.port  # free again in a moment
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load(f"coming_from/{name}").main, port)
            async with trio_wsprim_client(port) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def trio_wsprim_client(port: int) -> AsyncGenerator[Any]:
    async with create_reconnecting_ws(f"ws://127.0.0.1:{port}", delay=0.05) as ws:  # until the server listens
        yield ws


async def test_the_loop_of_another_library_runs_too(capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    async with serving() as server:
        recipe = load("coming_from/websockets_loop")
        await trio.to_thread.run_sync(lambda: asyncio.run(recipe.main(server.url)))

    assert capsys.readouterr().out == "hello\n"
