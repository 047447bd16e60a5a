"""A server's door in memory, on trio's clock: a listener to dial, and clients by hand who keep no rule."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Unpack, final

import trio

from trio_wsprim import Options, Server, ServerOptions, WebSocket, create_ws, create_ws_server
from trio_wsprim._server import Handler
from trio_wsprim.testing import MemoryStream, Opcode, Peer, memory_stream_pair

Headers = Iterable[tuple[str, str]]

HOST: Final = "example.test"
# RFC 6455, 1.3, has the answer to this one.
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE: Final = (
    ("Host", HOST),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


@final
class MemoryListener(trio.abc.Listener[MemoryStream]):
    """A listener without a network: what `open_stream` dials, `accept` gives the other end of.

    Args:
        buffer_size: How many bytes each direction of a connection holds unread.
    """

    def __init__(self, buffer_size: int = 65536) -> None:
        self._buffer_size = buffer_size
        self._arrive, self._arrived = trio.open_memory_channel[MemoryStream | OSError](math.inf)
        self._is_closed = False
        self._ends: list[MemoryStream] = []

    async def open_stream(self, _host: str = HOST, _port: int = 80) -> MemoryStream:
        """Dial; for `open_stream` of a socket, or by hand."""
        await trio.lowlevel.checkpoint()
        return self.dial()

    def dial(self) -> MemoryStream:
        """Dial, without waiting."""
        if self._is_closed:
            raise ConnectionRefusedError("nobody listens")
        theirs, ours = memory_stream_pair(self._buffer_size)
        self._ends.append(ours)
        self._arrive.send_nowait(ours)
        return theirs

    def fail(self, error: OSError) -> None:
        """Let the next `accept` raise."""
        self._arrive.send_nowait(error)

    async def accept(self) -> MemoryStream:
        """See `trio.abc.Listener`."""
        arrived = await self._arrived.receive()
        if isinstance(arrived, OSError):
            raise arrived
        return arrived

    async def aclose(self) -> None:
        """See `trio.abc.Listener`; who was not accepted yet is reset, as by a kernel."""
        self._is_closed = True
        while self._arrived.statistics().current_buffer_used:
            waiting = self._arrived.receive_nowait()
            if isinstance(waiting, MemoryStream):
                waiting.reset()
        self._arrived.close()
        await trio.lowlevel.checkpoint()

    async def count_open(self) -> int:
        """How many connections the server has not closed."""
        count = 0
        for end in self._ends:
            try:
                await end.send_eof()
            except trio.ClosedResourceError:
                continue
            except (trio.BrokenResourceError, trio.BusyResourceError):
                pass  # broken from the other end, or somebody writes: open all the same
            count += 1
        return count


@asynccontextmanager
async def serving(
    handler: Handler, buffer_size: int = 65536, **options: Unpack[ServerOptions]
) -> AsyncGenerator[tuple[Server, MemoryListener]]:
    """Serve in memory, and see to it that the server leaves neither a task nor an open stream behind."""
    listener = MemoryListener(buffer_size)
    options.setdefault("listeners", [listener])
    async with create_ws_server(handler, **options) as server:
        yield server, listener
    assert await listener.count_open() == 0
    assert server.connections == frozenset()


def dialing(
    listener: MemoryListener,
    resource: str = "/",
    subprotocols: Iterable[str] = (),
    **options: Unpack[Options],
) -> AbstractAsyncContextManager[WebSocket]:
    """Open a socket of ours to a listener."""
    options.setdefault("open_stream", listener.open_stream)
    return create_ws(f"ws://{HOST}{resource}", subprotocols, **options)


@dataclass(frozen=True)
class Answer:
    """What a server has answered, all of it."""

    status: int
    headers: dict[str, str]
    body: bytes = field(default=b"")


def handshake(path: str = "/", headers: Headers = (), *, without: Collection[str] = ()) -> bytes:
    """Write a request as a client would.

    Args:
        headers: Instead of those of the same names.
        without: Names of headers that are left out.
    """
    given = list(headers)
    left_out = {name.lower() for name in without} | {name.lower() for name, _ in given}
    lines = [f"{name}: {value}" for name, value in HANDSHAKE if name.lower() not in left_out]
    lines += [f"{name}: {value}" for name, value in given]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "\r\n"]).encode("latin-1")


async def read_answer(stream: trio.abc.Stream) -> Answer:
    """Read an answer: of a 101 the head alone; of any other all that comes until the server hangs up."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)
        assert byte, f"no answer but {head!r}"
        head += byte
    line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (each.partition(":") for each in fields)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    status = int(line.split(" ")[1])
    body = b""
    while status != 101 and (data := await stream.receive_some(65536)):
        body += data
    return Answer(status, headers, body)


async def ask(stream: trio.abc.Stream, path: str = "/", headers: Headers = ()) -> Answer:
    """Ask for a WebSocket, and hang up unless there is one."""
    await stream.send_all(handshake(path, headers))
    answer = await read_answer(stream)
    if answer.status != 101:
        await stream.aclose()
    return answer


async def call(stream: trio.abc.Stream, path: str = "/", headers: Headers = ()) -> Peer:
    """Shake hands by hand, and give what reads and writes frames."""
    answer = await ask(stream, path, headers)
    assert answer.status == 101, answer
    assert answer.headers["sec-websocket-accept"] == ACCEPT
    return Peer(stream)


async def say(client: Peer, message: str | bytes) -> None:
    """Send a message as a client does: masked."""
    is_text = isinstance(message, str)
    payload = message.encode() if isinstance(message, str) else message
    await client.send_frame(Opcode.TEXT if is_text else Opcode.BINARY, payload, masked=True)


async def hear_close(client: Peer, *, answer: bool = True) -> int:
    """Pass over what comes until the server's close frame; answer that, wait for it to hang up, give its code."""
    while True:
        frame = await client.receive_frame()
        assert not frame.masked
        if frame.opcode == Opcode.CLOSE:
            break
    if answer:
        await client.send_frame(Opcode.CLOSE, frame.payload, masked=True)
        assert await client.stream.receive_some() == b""
        await client.aclose()
    return int.from_bytes(frame.payload[:2], "big")
