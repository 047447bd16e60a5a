"""A whole client, or a whole server, meets a peer that says certain bytes: what comes of it, and what must."""

from __future__ import annotations

import logging
import pickle
import re
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha1
from itertools import pairwise
from math import inf
from typing import Final, Literal, TypeAlias, final

import trio
import trio.testing
from trio.lowlevel import current_statistics

from trio_wsprim import (
    Buffer,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    ServerWebSocket,
    WebSocket,
    create_ws,
    create_ws_server,
)
from trio_wsprim._frames import CLOSE
from trio_wsprim.abc import ServerTransport, Transport

from .recordings import ACCEPT, LIMIT
from .streams import End

Ending: TypeAlias = Literal["eof", "reset", "silence"]

# Virtual seconds that may pass: more than all timeouts together.
_PATIENCE: Final = 60.0
# Turns of tasks that a meeting may take, and so many more for each byte: a core has some for each frame.
_TURNS, _TURNS_PER_BYTE = 3000, 20
# What a meeting may take of memory, and so many bytes more for each that is said: frames are kept as they came,
# decoded, in a list, and in our own notes.
_MEMORY, _MEMORY_PER_BYTE = 2**20 + 12 * LIMIT, 150
# What is received may wait without end here; it is what was said, and that is bounded.
_NO_BOUNDS: Final = Buffer(None, None)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Trouble(Exception):
    """Something that must not happen has."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What a peer says, and how.

    Attributes:
        cuts: Where it is split, so that each piece is read on its own.
        ending: What it does then.
    """

    data: bytes
    cuts: tuple[int, ...] = ()
    ending: Ending = "eof"

    def pieces(self) -> list[tuple[int, int]]:
        return list(pairwise((0, *self.cuts, len(self.data))))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a meeting, as far as it must be the same wherever the bytes were split.

    Attributes:
        messages: What came in.
        error: The name of what was raised then; of a server, the status that it answered.
        code: The close code, where there is one.
    """

    messages: tuple[str | bytes, ...] = ()
    error: str = ""
    code: int | None = None


# ------------------------------------------------------------------------------------------------------- what must hold


@final
class _TurnCounter(trio.abc.Instrument):
    """Cancels what goes on for ever without time passing."""

    def __init__(self, most: int, scope: trio.CancelScope) -> None:
        self.left = most
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


@asynccontextmanager
async def bounded(speech: Speech, *, weighs: bool) -> AsyncGenerator[None]:
    """Hold a meeting to its bounds: turns, virtual time, memory, and no task left behind.

    Args:
        weighs: Whether to measure memory, which takes several times as long.
    """
    tasks = current_statistics().tasks_living
    with _weighed(speech) if weighs else nullcontext(), trio.move_on_after(_PATIENCE) as scope:
        counter = _TurnCounter(_TURNS + _TURNS_PER_BYTE * len(speech.data), scope)
        trio.lowlevel.add_instrument(counter)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(counter)
    if counter.left <= 0:
        raise Trouble("it goes on for ever without time passing")
    if scope.cancelled_caught:
        raise Trouble(f"it hangs: not over after {_PATIENCE:g} s")
    for _ in range(5):  # the last ones may be on their way out
        if current_statistics().tasks_living == tasks:
            return
        await trio.testing.wait_all_tasks_blocked()
    raise Trouble("a task was left behind")


@contextmanager
def _weighed(speech: Speech) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    most = _MEMORY + _MEMORY_PER_BYTE * len(speech.data)
    if peak > most:
        raise Trouble(f"{len(speech.data)} bytes took {peak} bytes of memory, at most {most} are allowed")


def check_is_ours(error: BaseException) -> None:
    """What a user gets is of our own tree, says a sentence, and pickles."""
    if type(error) not in {ConnectionFailed, ConnectionRejected, ConnectionClosed}:
        raise Trouble(f"undocumented: {error!r}") from error
    sentence = str(error)
    if not sentence[0].islower() or "\n" in sentence:
        raise Trouble(f"no sentence: {sentence!r}") from error
    if str(pickle.loads(pickle.dumps(error))) != sentence:
        raise Trouble(f"does not pickle: {error!r}") from error


def check_sizes(messages: Iterable[str | bytes]) -> None:
    """What is too large has not come in."""
    for message in messages:
        if len(message) > LIMIT:
            raise Trouble(f"a message of {len(message)}, at most {LIMIT} are allowed")


def read_frames(data: bytes, *, masked: bool) -> list[tuple[int, bytes]]:
    """Read what our side wrote, by hand, and strictly; a frame that was cut off at the end is left out."""
    frames: list[tuple[int, bytes]] = []
    while len(data) >= 2:
        first, second = data[:2]
        start, size = 2, second & 0x7F
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start])
        start += 4 * masked
        if len(data) < start + size:
            break
        if bool(second & 0x80) is not masked or first & 0x30 or first & 0x0F not in {1, 2, 8, 9, 10}:
            raise Trouble(f"our side wrote a frame that breaks the protocol: {data[:20]!r}")
        if frames and frames[-1][0] == CLOSE:
            raise Trouble("our side wrote something after its close frame")
        frames.append((first & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return frames


# ------------------------------------------------------------------------------------------------------- the peer


@final
class _Speaker:
    """The peer: says its speech, and hears all that is said.

    Attributes:
        heard: What our side has written.
        has_ended: Whether it has hung up.
    """

    def __init__(self, stream: End, speech: Speech) -> None:
        self._stream = stream
        self._speech = speech
        self.heard = bytearray()
        self.has_ended = False

    async def hear(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self._stream.receive_some():
                self.heard += data
            self.has_ended = True

    async def speak(self, data: bytes) -> None:
        """Say it, piece by piece, and end; a piece is there when all of the one before has been dealt with."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for begin, end in self._speech.pieces():
                await self._stream.send_all(data[begin:end])
                await trio.testing.wait_all_tasks_blocked()
        match self._speech.ending:
            case "eof":
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._stream.send_eof()
            case "reset":
                self._stream.reset()
            case _:
                pass

    async def answer(self) -> None:
        """Say it as a server does: after the request, and with the key that answers it."""
        while b"\r\n\r\n" not in self.heard:
            await trio.testing.wait_all_tasks_blocked()
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", self.heard)
        if key is None:
            raise Trouble("a request without a key")
        accept = b64encode(sha1(key[1] + _GUID, usedforsecurity=False).digest())
        await self.speak(self._speech.data.replace(ACCEPT, accept))


# ------------------------------------------------------------------------------------------------------- a client


async def meet_client(transport: Transport, speech: Speech, *, weighs: bool = False) -> Outcome:
    """Let a client dial a server that says this."""
    near, far = End.pair()
    speaker = _Speaker(far, speech)

    async def open_stream(host: str, port: int) -> End:
        await trio.lowlevel.checkpoint()
        return near

    messages: list[str | bytes] = []
    error: BaseException | None = None
    async with bounded(speech, weighs=weighs), trio.open_nursery() as nursery:
        nursery.start_soon(speaker.hear)
        try:
            async with create_ws(
                "ws://example.test/",
                transport=transport,
                open_stream=open_stream,
                max_message_bytes=LIMIT,
                inbox=_NO_BOUNDS,
            ) as ws:
                error = await _listen(ws, messages, speaker, speech)
        except Exception as raised:  # noqa: BLE001 - judged at once
            error = raised
        if not near.is_closed:
            raise Trouble("the stream was left open")
        nursery.cancel_scope.cancel()
    _, _, written = bytes(speaker.heard).partition(b"\r\n\r\n")
    frames = read_frames(written, masked=True)
    if error is not None and not isinstance(error, trio.EndOfChannel | trio.ClosedResourceError):
        check_is_ours(error)
    check_sizes(messages)
    _check_code(error, frames)
    return Outcome(tuple(messages), type(error).__name__, getattr(error, "code", None))


async def _listen(
    ws: WebSocket, messages: list[str | bytes], speaker: _Speaker, speech: Speech
) -> BaseException | None:
    """Receive until something is raised; of a peer that falls silent, until it has been silent for a while."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speaker.answer)
        try:
            await ws.wait_open()
            while True:
                with trio.move_on_after(1 if speech.ending == "silence" else inf) as scope:
                    messages.append(await ws.receive())
                if scope.cancelled_caught:
                    return None
        except Exception as error:  # noqa: BLE001 - judged by whoever asked
            return error


def _check_code(error: BaseException | None, frames: list[tuple[int, bytes]]) -> None:
    """Whoever broke the protocol was told with the code that the user was told."""
    closes = [payload for opcode, payload in frames if opcode == CLOSE]
    if isinstance(error, ConnectionClosed) and error.code in {1002, 1007, 1009} and not closes:
        raise Trouble(f"closed with {error.code}, without a word to the peer")


# ------------------------------------------------------------------------------------------------------- a server


@final
class _Door(trio.abc.Listener[trio.abc.Stream]):
    """A listener to which one client comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream: trio.abc.Stream | None = stream

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        stream, self._stream = self._stream, None
        if stream is None:
            await trio.sleep_forever()
        assert stream is not None
        return stream

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@final
class _Complaints(logging.Handler):
    """Hears what the server logs as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def meet_server(transport: ServerTransport, speech: Speech, *, weighs: bool = False) -> Outcome:
    """Let a client that says this come to a server, which sends everything back."""
    near, far = End.pair()
    speaker = _Speaker(far, speech)
    messages: list[str | bytes] = []
    errors: list[BaseException] = []

    async def echo(ws: ServerWebSocket) -> None:
        try:
            while True:
                messages.append(await ws.receive())
                await ws.send(messages[-1])
        except (trio.EndOfChannel, trio.ClosedResourceError, ConnectionClosed) as error:
            errors.append(error)

    complaints = _Complaints()
    log = logging.getLogger("trio_wsprim")
    log.addHandler(complaints)
    try:
        async with bounded(speech, weighs=weighs), trio.open_nursery() as nursery:
            nursery.start_soon(speaker.hear)
            async with create_ws_server(
                echo,
                listeners=[_Door(near)],
                transport=transport,
                max_message_bytes=LIMIT,
                inbox=_NO_BOUNDS,
                outbox=_NO_BOUNDS,
            ) as server:
                await speaker.speak(speech.data)
                # Longer than a server waits for a client, but for one whose connection is open.
                await trio.sleep(20)
                if server.connections and speech.ending != "silence":
                    raise Trouble("the client has gone, and the server has not noticed")
            if not near.is_closed:
                raise Trouble("the stream was left open")
            nursery.cancel_scope.cancel()
    finally:
        log.removeHandler(complaints)
    for record in complaints.records:
        raise Trouble(f"the server complains: {record.getMessage()}") from (record.exc_info or (None, None))[1]
    for error in errors:
        if isinstance(error, ConnectionClosed):
            check_is_ours(error)
    check_sizes(messages)
    return _read_answer(bytes(speaker.heard), messages, errors)


def _read_answer(heard: bytes, messages: list[str | bytes], errors: list[BaseException]) -> Outcome:
    """Hold what the server wrote to the protocol."""
    status = ""
    code: int | None = None
    if heard:
        found = re.match(rb"HTTP/1\.1 (\d{3}) [\x20-\x7e]*\r\n(?:[!-9;-~]+: [\x20-\x7e]*\r\n)*\r\n", heard)
        if found is None:
            raise Trouble(f"an answer that is no HTTP: {heard[:200]!r}")
        status = found[1].decode()
        if status == "101":
            frames = read_frames(heard[found.end() :], masked=False)
            closes = [payload for opcode, payload in frames if opcode == CLOSE]
            code = int.from_bytes(closes[0][:2]) if closes and closes[0] else None
        elif status not in {"501", "505"} and status[0] != "4":
            raise Trouble(f"answered {status}")
    if messages and status != "101":
        raise Trouble("a message without a handshake")
    for error in errors:
        if isinstance(error, ConnectionClosed) and error.code in {1002, 1007, 1009} and code is None:
            raise Trouble(f"closed with {error.code}, without a word to the client")
    return Outcome(tuple(messages), status, code)
