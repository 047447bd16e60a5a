"""Our server with clients that others have made: Node's `ws`, `websockets`, and what a browser says, said by hand."""

from __future__ import annotations

import json
import struct
import subprocess
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Unpack

import pytest
import trio
from websockets.exceptions import ConnectionClosed as TheirConnectionClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.peers import find_node
from tests.test_examples import EXAMPLES, load_file
from trio_wsprim import (
    CloseEvent,
    ConnectionClosed,
    Server,
    ServerOptions,
    ServerWebSocket,
    WebsocketsTransport,
    create_ws_server,
)

# Seconds for a whole test, on a machine that is busy with other things.
PATIENCE: Final = 120
BIG: Final = "große Nachricht " * 20_000
ENDINGS: Final = [(1000, ""), (1001, "gone"), (4001, "own reasons")]


@dataclass
class Guests:
    """A server that answers each message with the same, and how its clients come and go."""

    server: Server
    arrived: trio.Event
    ends: trio.MemoryReceiveChannel[CloseEvent]


@asynccontextmanager
async def hosting(**options: Unpack[ServerOptions]) -> AsyncGenerator[Guests]:
    arrived = trio.Event()
    tell, ends = trio.open_memory_channel[CloseEvent](100)

    async def echo(ws: ServerWebSocket) -> None:
        arrived.set()
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            async for message in ws:
                await ws.send(message)
        tell.send_nowait(await ws.wait_closed())

    with trio.fail_after(PATIENCE):
        async with create_ws_server(echo, **options) as server:
            yield Guests(server, arrived, ends)


# ------------------------------------------------------------------------------------ Node's ws

# Ends by itself, whatever happens: a test that hangs would leave it behind otherwise.
NODE_PRELUDE: Final = """
const WebSocket = require(process.argv[1]);
const url = process.argv[2];
const tell = (value) => process.stdout.write(JSON.stringify(value), () => process.exit(0));
setTimeout(() => process.exit(3), 100_000).unref();
process.on('uncaughtException', (error) => tell({error: error.message}));
const opened = (ws) => new Promise((done) => ws.once('open', done));
const message = (ws) => new Promise((done) => ws.once('message', (data, isBinary) => done([data, isBinary])));
"""


async def run_node(package: Path, script: str, url: str) -> Any:
    """Run a script of Node's against a server; give what it tells."""
    done = await trio.run_process(
        [find_node(), "-e", f"{NODE_PRELUDE}(async () => {{ {script} }})()", package, url],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return json.loads(done.stdout)


NODE_TALKS: Final = """
const ws = new WebSocket(url, ['fish', 'echo']);
await opened(ws);
const told = [ws.protocol, ws.extensions];
const long = 'große Nachricht '.repeat(20_000);
for (const sent of ['', 'hello', long, Buffer.from([0, 1, 254, 255]), Buffer.alloc(200_000, 7)]) {
    ws.send(sent);
    const [data, isBinary] = await message(ws);
    told.push([isBinary, data.equals(Buffer.from(sent))]);
}
ws.send('in ', {fin: false});
ws.send('three ', {fin: false});
ws.send('parts', {fin: true});
told.push((await message(ws))[0].toString());
const pong = new Promise((done) => ws.once('pong', done));
ws.ping('are you there?');
told.push((await pong).toString());
tell(told);
"""


async def test_node_talks_with_us(ws_package: Path) -> None:
    async with hosting(subprotocols=("echo",)) as guests:
        told = await run_node(ws_package, NODE_TALKS, guests.server.url)

    is_text, is_binary = [False, True], [True, True]
    same = [is_text, is_text, is_text, is_binary, is_binary]
    assert told == ["echo", "", *same, "in three parts", "are you there?"]


async def test_node_talks_with_us_compressed(ws_package: Path) -> None:
    async with hosting(transport=WebsocketsTransport(compression="deflate"), subprotocols=("echo",)) as guests:
        told = await run_node(ws_package, NODE_TALKS, guests.server.url)

    assert told[:2] == ["echo", "permessage-deflate"]
    assert [is_same for _, is_same in told[2:7]] == [True] * 5
    assert told[7:] == ["in three parts", "are you there?"]


@pytest.mark.parametrize(("code", "reason"), ENDINGS)
async def test_we_know_how_node_has_closed_and_it_knows_that_we_know(code: int, reason: str, ws_package: Path) -> None:
    script = f"""
        const ws = new WebSocket(url);
        await opened(ws);
        ws.once('close', (code, reason) => tell([code, reason.toString()]));
        ws.close({code}, {json.dumps(reason)});
    """
    async with hosting() as guests:
        told = await run_node(ws_package, script, guests.server.url)
        end = await guests.ends.receive()

    assert told[0] == code
    assert (end.code, end.reason, end.clean) == (code, reason, True)


async def test_node_is_told_that_the_server_goes(ws_package: Path) -> None:
    script = """
        const ws = new WebSocket(url);
        ws.once('close', (code) => tell(code));
        await opened(ws);
        ws.send('here');
    """
    told: list[Any] = []

    async def listen(url: str) -> None:
        told.append(await run_node(ws_package, script, url))

    async with trio.open_nursery() as nursery, hosting() as guests:
        nursery.start_soon(listen, guests.server.url)
        await guests.arrived.wait()
        await guests.server.aclose()

    assert told == [1001]


async def test_node_gets_1009_for_a_message_that_is_too_big(ws_package: Path) -> None:
    script = """
        const ws = new WebSocket(url);
        ws.once('close', (code) => tell(code));
        await opened(ws);
        ws.send('x'.repeat(1001));
    """
    async with hosting(max_message_bytes=1000) as guests:
        assert await run_node(ws_package, script, guests.server.url) == 1009


async def test_node_from_a_foreign_page_is_refused(ws_package: Path) -> None:
    script = """
        const ws = new WebSocket(url, {origin: 'https://foreign.example'});
        ws.on('error', (error) => tell(error.message));
        ws.on('open', () => tell('open'));
    """
    async with hosting() as guests:
        assert await run_node(ws_package, script, guests.server.url) == "Unexpected server response: 403"


async def test_node_plays_ping_pong_with_the_server_of_the_examples(ws_package: Path) -> None:
    script = """
        const ws = new WebSocket(url);
        await opened(ws);
        const told = [];
        const deep = '['.repeat(100_000);
        for (const sent of [{type: 'ping', data: {id: 7}}, {type: 'pang'}, {type: 'ping'}, 'no JSON', deep]) {
            ws.send(typeof sent === 'string' ? sent : JSON.stringify(sent));
            told.push(JSON.parse((await message(ws))[0]));
        }
        ws.send(Buffer.from(JSON.stringify({type: 'ping', data: {id: 'in binary'}})));
        told.push(JSON.parse((await message(ws))[0]));
        tell(told);
    """
    with trio.fail_after(PATIENCE):
        async with create_ws_server(load_file(EXAMPLES / "ping_pong.py").ping_pong) as server:
            first, *errors, last = await run_node(ws_package, script, server.url)

    assert (first["type"], first["data"]["id"]) == ("pong", 7)
    assert isinstance(first["data"]["time"], float)
    assert [list(error) for error in errors] == [["error"]] * 4
    assert last["data"]["id"] == "in binary"


# ------------------------------------------------------------------------------------ websockets


async def test_websockets_talks_with_us() -> None:
    def talk(url: str) -> list[object]:
        with connect(url, subprotocols=[Subprotocol("echo")], proxy=None) as ws:
            told: list[object] = [ws.subprotocol]
            for message in ("", "hello", BIG, b"\0\1\xfe\xff", ["in ", "three ", "parts"]):
                ws.send(message)
                told.append(ws.recv(PATIENCE))
            told.append(ws.ping().wait(PATIENCE))
            return told

    async with hosting(subprotocols=("echo",)) as guests:
        told = await trio.to_thread.run_sync(talk, guests.server.url, abandon_on_cancel=True)
        end = await guests.ends.receive()

    assert told == ["echo", "", "hello", BIG, b"\0\1\xfe\xff", "in three parts", True]
    assert (end.code, end.clean) == (1000, True)


@pytest.mark.parametrize(("code", "reason"), ENDINGS)
async def test_we_know_how_websockets_has_closed(code: int, reason: str) -> None:
    def leave(url: str) -> int | None:
        with connect(url, proxy=None) as ws:
            ws.close(code, reason)
            return ws.protocol.close_code

    async with hosting() as guests:
        assert await trio.to_thread.run_sync(leave, guests.server.url, abandon_on_cancel=True) == code
        end = await guests.ends.receive()

    assert (end.code, end.reason, end.clean) == (code, reason, True)


async def test_websockets_from_a_foreign_page_is_refused_and_from_ours_is_not() -> None:
    def knock(url: str, origin: str) -> int:
        try:
            with connect(url, additional_headers={"Origin": origin}, proxy=None) as ws:
                ws.send("hello")
                return 101 if ws.recv(PATIENCE) == "hello" else 0
        except InvalidStatus as refused:
            return refused.response.status_code

    async with hosting() as guests:
        url, ours = guests.server.url, f"http://127.0.0.1:{guests.server.port}"
        answers = [
            await trio.to_thread.run_sync(knock, url, origin, abandon_on_cancel=True)
            for origin in (ours, "https://foreign.example", "null")
        ]

    assert answers == [101, 403, 403]


async def test_websockets_sees_what_a_handler_that_raises_closes_with() -> None:
    def wait(url: str) -> int:
        with connect(url, proxy=None) as ws:
            try:
                ws.recv(PATIENCE)
            except TheirConnectionClosed as end:
                return end.rcvd.code if end.rcvd else 0
        return 0

    async def fail(_: ServerWebSocket) -> None:
        raise RuntimeError("a fault in a handler")

    with trio.fail_after(PATIENCE):
        async with create_ws_server(fail) as server:
            assert await trio.to_thread.run_sync(wait, server.url, abandon_on_cancel=True) == 1011


# ------------------------------------------------------------------------------------ by hand

# The key and its answer are those of RFC 6455, 1.3.
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK: Final = bytes([0x37, 0xFA, 0x21, 0x3D])


def as_a_browser_asks(host: str) -> bytes:
    """Ask as Chromium does, word by word and in its order."""
    lines = [
        "GET /chat?room=1 HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0",
        "Upgrade: websocket",
        f"Origin: http://{host}",
        "Sec-WebSocket-Version: 13",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-US,en;q=0.9",
        f"Cookie: theme=dark; session={b64encode(bytes(300)).decode()}",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(first: int, payload: bytes) -> bytes:
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return bytes([first, 0x80 | len(payload)]) + MASK + body


async def read_exactly(stream: trio.SocketStream, number: int) -> bytes:
    got = b""
    while len(got) < number:
        part = await stream.receive_some(number - len(got))
        assert part, f"it hung up after {got!r}"
        got += part
    return got


async def read_head(stream: trio.SocketStream) -> tuple[bytes, dict[bytes, bytes]]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await read_exactly(stream, 1)
    status, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return status, {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_browsers_handshake_and_frames_said_by_hand(pieces: int) -> None:
    async with hosting() as guests:
        stream = await trio.open_tcp_stream("127.0.0.1", guests.server.port)
        async with stream:
            asked = as_a_browser_asks(f"127.0.0.1:{guests.server.port}")
            for at in range(0, len(asked), size := -(-len(asked) // pieces)):
                await stream.send_all(asked[at : at + size])
            status, headers = await read_head(stream)

            assert status.startswith(b"HTTP/1.1 101 ")
            assert headers[b"upgrade"].lower() == b"websocket"
            assert headers[b"connection"].lower() == b"upgrade"
            assert headers[b"sec-websocket-accept"] == ACCEPT
            # Nothing was agreed on that was not wanted: no subprotocol was offered, and compression is off by default.
            assert not headers.keys() & {b"sec-websocket-protocol", b"sec-websocket-extensions"}

            await stream.send_all(masked(0x81, b"hello"))
            assert await read_exactly(stream, 7) == b"\x81\x05hello"
            await stream.send_all(masked(0x89, b"?"))
            assert await read_exactly(stream, 3) == b"\x8a\x01?"
            await stream.send_all(masked(0x88, struct.pack(">H", 4000) + b"enough"))
            assert await read_exactly(stream, 4) == b"\x88\x08\x0f\xa0"
            rest = await read_exactly(stream, 6)
            assert rest == b"enough"
            assert await stream.receive_some() == b""
        end = await guests.ends.receive()

    assert (end.code, end.reason, end.clean) == (4000, "enough", True)


async def test_a_frame_without_a_mask_is_answered_with_1002() -> None:
    async with hosting() as guests:
        stream = await trio.open_tcp_stream("127.0.0.1", guests.server.port)
        async with stream:
            await stream.send_all(as_a_browser_asks(f"127.0.0.1:{guests.server.port}"))
            await read_head(stream)

            await stream.send_all(b"\x81\x05hello")

            first, size = await read_exactly(stream, 2)
            assert first == 0x88
            assert (await read_exactly(stream, size))[:2] == struct.pack(">H", 1002)


async def test_a_browser_that_asks_for_a_page_is_told_that_there_is_none() -> None:
    async with hosting() as guests:
        stream = await trio.open_tcp_stream("127.0.0.1", guests.server.port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n")
            status, _ = await read_head(stream)

    assert status.split()[1] in {b"400", b"426"}
