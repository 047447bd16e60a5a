"""A scripted peer: the server's side of a connection, which does what a test tells it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from random import Random
from typing import Final, NoReturn, Protocol, cast, final, runtime_checkable

import trio

from trio_wsprim._values import Message, check_number

from ._codec import (
    Frame,
    Opcode,
    Request,
    accept_key_for,
    decode_frame,
    encode_frame,
    encode_rejection,
    encode_response,
    opcode_of,
    parse_request,
    to_payload,
)
from ._memory import MemoryStream, Parcel, parcel_of

_DEFINED: Final[frozenset[int]] = frozenset(Opcode)
# Who reads slowly reads so many times a second.
_READS_PER_SECOND: Final = 10


class PeerClosed(Exception):
    """The client sent a close frame.

    Attributes:
        code: `None` if the frame had none.
        reason: Empty if the frame had none.
    """

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"the client sent a close frame with code {self.code} and reason {self.reason!r}"


@runtime_checkable
class _Severable(Protocol):
    """A stream that can end at once, as those of `MemoryNetwork` can."""

    def close(self) -> None: ...

    def reset(self) -> None: ...


def _sever(stream: trio.abc.Stream, *, reset: bool) -> None:
    """End the connection now, without a word from the layers above it."""
    if isinstance(stream, trio.SSLStream):
        _sever(cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream, reset=reset)
    elif isinstance(stream, trio.SocketStream):
        if reset:
            # Lingering for no time at all is how BSD sockets are told to send RST.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
    elif isinstance(stream, _Severable):
        stream.reset() if reset else stream.close()
    else:
        raise TypeError(f"a {type(stream).__name__} cannot be closed without waiting")


def _in_memory(stream: trio.abc.Stream) -> MemoryStream:
    """Give the stream that can be frozen, below whatever is above it."""
    if isinstance(stream, trio.SSLStream):
        return _in_memory(cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream)
    if isinstance(stream, MemoryStream):
        return stream
    raise TypeError(f"a {type(stream).__name__} cannot be frozen: only memory can, and sockets through a FaultProxy")


@final
class _Wire:
    """The bytes of a connection: whole writes out, and what came and was not used up."""

    __slots__ = ("_turn", "stream", "unused")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._turn = trio.Lock()
        self.stream = stream
        self.unused = bytearray()

    async def send(self, data: bytes) -> None:
        # A script may send while another task answers a ping; trio streams take one at a time.
        async with self._turn:
            await self.stream.send_all(data)

    async def send_message(self, message: Message) -> None:
        """Send a message in one frame; to a client in memory, without making one."""
        if isinstance(self.stream, MemoryStream) and self.stream.sends_parcels:
            async with self._turn:
                await self.stream.send_parcel(parcel_of(message, masked=False))
        else:
            await self.send(encode_frame(opcode_of(message), to_payload(message)))

    async def pull(self, most: int | None = None) -> None:
        """Wait for more bytes; raise `trio.EndOfChannel` at EOF."""
        self._take_in(await self.stream.receive_some(most))

    async def receive_frame(self) -> Frame:
        """Wait for a frame; raise `trio.EndOfChannel` at EOF."""
        while (frame := self.take_frame()) is None:
            if not isinstance(self.stream, MemoryStream):
                await self.pull()
                continue
            chunk = await self.stream.receive_chunk()
            if isinstance(chunk, Parcel):
                if not self.unused:
                    return chunk.as_frame()
                chunk = chunk.encode()
            self._take_in(chunk)
        return frame

    def take_frame(self) -> Frame | None:
        """Give the next frame of what is there; `None` if it is not complete."""
        decoded = decode_frame(self.unused)
        if decoded is None:
            return None
        frame, size = decoded
        del self.unused[:size]
        return frame

    def _take_in(self, data: bytes | bytearray) -> None:
        if not data:
            raise trio.EndOfChannel(f"EOF, with {len(self.unused)} bytes left that are no whole")
        self.unused += data

    def take(self, size: int) -> bytes:
        data = bytes(self.unused[:size])
        del self.unused[:size]
        return data


@final
class Peer:
    """The scripted server side of one connection.

    It has no notion of what is allowed: every method sends what it is told to,
    at any time. Only `receive`, and what uses it, behaves like a server,
    and holds the client to the protocol.

    Any task may send; what several send at once goes out in turn, frame by frame. One
    task at a time may receive. Every call raises `trio.ClosedResourceError`
    after our own end was closed, and `trio.BrokenResourceError` if the client is gone
    (sending) or broke the connection (both).

    Attributes:
        request: The last request read, or `None`.
        frames: Every frame received, in order.
        answer_pings: Whether `receive` answers pings.
        answer_close: Whether `receive` answers a close frame and closes the stream.
    """

    __slots__ = (
        "_close_sent",
        "_is_accepted",
        "_parts",
        "_rng",
        "_wire",
        "answer_close",
        "answer_pings",
        "frames",
        "request",
    )

    def __init__(self, stream: trio.abc.Stream, rng: Random | None = None) -> None:
        self._wire = _Wire(stream)
        self._rng = rng or Random(0)
        self._parts: list[Frame] = []
        self._close_sent = False
        self._is_accepted = False
        self.request: Request | None = None
        self.frames: list[Frame] = []
        self.answer_pings: bool = True
        self.answer_close: bool = True

    @property
    def stream(self) -> trio.abc.Stream:
        """The stream underneath, for instance to put TLS over it: `peer_over(SSLStream(...))`."""
        return self._wire.stream

    @property
    def is_open(self) -> bool:
        """Whether we have accepted the client, and sent no close frame."""
        return self._is_accepted and not self._close_sent

    @property
    def pings(self) -> list[bytes]:
        """The payloads of all the pings received, in order."""
        return [frame.payload for frame in self.frames if frame.opcode == Opcode.PING]

    @property
    def pongs(self) -> list[bytes]:
        """The payloads of all the pongs received, in order."""
        return [frame.payload for frame in self.frames if frame.opcode == Opcode.PONG]

    @property
    def unparsed(self) -> bytes:
        """What came and is no whole request or frame; after EOF, a frame that was torn."""
        return bytes(self._wire.unused)

    # --- the handshake ---

    async def read_request(self) -> Request:
        """Read the next request's head, without its body; it is also kept as `request`.

        A second call reads a second one: the request in the tunnel, after a proxy's `CONNECT`.

        Raises:
            trio.EndOfChannel: If the client closed before it was complete.

        Cancellation: atomic.
        """
        while (end := self._wire.unused.find(b"\r\n\r\n")) < 0:
            await self._wire.pull()
        self.request = parse_request(self._wire.take(end + 4))
        return self.request

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        *,
        accept_key: str | None = None,
    ) -> Request:
        """Answer 101; read the request first if none was read.

        Args:
            subprotocol: Named in the answer whether or not it was asked for; `None` names none.
            headers: More headers for the answer.
            accept_key: Another `Sec-WebSocket-Accept` than the right one; `None` for that.

        Raises:
            trio.EndOfChannel: If the client closed before its request was complete.

        Cancellation: may be partial. The answer may have gone out whole, in part or not at all.
        """
        request = self.request or await self.read_request()
        if accept_key is None:
            accept_key = accept_key_for(request.header("sec-websocket-key") or "")
        answer = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key),
        ]
        if subprotocol is not None:
            answer.append(("Sec-WebSocket-Protocol", subprotocol))
        await self._wire.send(encode_response(101, None, [*answer, *headers]))
        self._is_accepted = True
        return request

    async def reject(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        reason: str | None = None,
    ) -> Request:
        """Answer HTTP instead of 101; read the request first if none was read.

        The connection stays open, as with keep-alive.

        Args:
            headers: With a `Content-Length` or `Transfer-Encoding` among them, no
                `Content-Length` is added, so that it can be wrong.
            reason: The words after the status; `None` for the usual ones.

        Raises:
            trio.EndOfChannel: If the client closed before its request was complete.

        Cancellation: may be partial. The answer may have gone out whole, in part or not at all.
        """
        request = self.request or await self.read_request()
        await self._wire.send(encode_rejection(status, reason, headers, body))
        return request

    # --- sending ---

    async def send(self, message: str | bytes) -> None:
        """Send a message in one frame.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        await self._wire.send_message(message)

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None:
        r"""Send one message with each part in a frame of its own, in one write.

        Args:
            parts: At least one. The type of the first decides between text and binary, so
                `["", b"\xc3", b"\xa9"]` is a text cut within a character.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        opcodes = [opcode_of(parts[0])] + [Opcode.CONTINUATION] * (len(parts) - 1)
        frames = [
            encode_frame(opcode, to_payload(part), fin=number == len(parts))
            for number, (opcode, part) in enumerate(zip(opcodes, parts, strict=True), 1)
        ]
        await self._wire.send(b"".join(frames))

    async def ping(self, payload: bytes = b"") -> None:
        """Send a ping. The answer shows up in `pongs`, once some task has received it.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        await self.send_frame(Opcode.PING, payload)

    async def pong(self, payload: bytes = b"") -> None:
        """Send a pong, asked for or not.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        await self.send_frame(Opcode.PONG, payload)

    async def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame, and leave the stream open.

        Args:
            code: Any number, allowed or not; `None` for an empty frame, whatever the reason.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        payload = b"" if code is None else code.to_bytes(2) + reason.encode()
        await self.send_frame(Opcode.CLOSE, payload)

    async def send_frame(
        self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = False
    ) -> None:
        """Send any frame, allowed or not; the arguments are those of `encode_frame`.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        self._close_sent |= opcode == Opcode.CLOSE
        await self._wire.send(encode_frame(opcode, payload, fin=fin, rsv=rsv, masked=masked))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are: garbage, half a frame, an answer of your own making.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        await self._wire.send(data)

    async def send_part(self, message: str | bytes, size: int) -> None:
        """Send only the first bytes of a message's frame; `send_raw` may send others behind them.

        Args:
            message: Of which to make the frame.
            size: How many bytes of the frame, its header included, at least 1 and fewer than all.

        Raises:
            ValueError: If the frame has not so many.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        frame = encode_frame(opcode_of(message), to_payload(message))
        if not 1 <= size < len(frame):
            raise ValueError(f"size must be from 1 to {len(frame) - 1}, as the frame has {len(frame)}, got {size!r}")
        await self._wire.send(frame[:size])

    async def send_garbled(self, message: str | bytes) -> None:
        """Send a message whose frame was garbled on the way: noise, by the network's seed.

        Its reserved bits are set whatever the noise is, so no client can take it for a good frame: it is a breach of
        the protocol, and ends the connection with 1002. Before the handshake it is an answer that is no HTTP.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        frame = encode_frame(opcode_of(message), to_payload(message))
        noise = self._rng.randbytes(len(frame))
        await self._wire.send(bytes([noise[0] | 0x70]) + noise[1:])

    # --- receiving ---

    async def receive_frame(self) -> Frame:
        """Receive the next frame, whatever it is, and answer nothing.

        Raises:
            trio.EndOfChannel: If the client closed; `unparsed` is what it left unfinished.

        Cancellation: atomic.
        """
        frame = await self._wire.receive_frame()
        self.frames.append(frame)
        return frame

    async def receive(self) -> str | bytes:
        """Receive the next data message; meanwhile answer pings and a close as a server does.

        Raises:
            PeerClosed: If the client sent a close frame. With `answer_close` it was answered
                with the same code, unless our own went before it, and the stream is closed.
            trio.EndOfChannel: If the client closed the stream.
            AssertionError: If the client broke the protocol: a frame without a mask, a reserved
                opcode, fragments out of order.

        Cancellation: loses no message, but an answer to a ping may be partial.
        """
        while True:
            frame = await self.receive_frame()
            self._check(frame)
            if frame.opcode == Opcode.PING:
                await self._on_ping(frame.payload)
            elif frame.opcode == Opcode.CLOSE:
                await self._on_close(frame.payload)
            elif frame.opcode != Opcode.PONG:
                self._parts.append(frame)
                if frame.fin:
                    return self._take_message()

    async def receive_all(self, count: int) -> list[str | bytes]:
        """Receive that many data messages, as `receive` does.

        Cancellation: may be partial. Messages received by then are lost, but their
        frames are in `frames`.
        """
        return [await self.receive() for _ in range(count)]

    async def read_slowly(self, bytes_per_second: float) -> None:
        """Read no faster than that until the client is gone, so that it is pushed back on; answer nothing.

        Frames show up in `frames` when they are complete. The client's buffer and ours go on taking what there is room
        for: give the network a small `buffer_size` to see what happens when there is none.

        Args:
            bytes_per_second: At least 1.

        Cancellation: atomic.
        """
        check_number("bytes_per_second", bytes_per_second, least=1)
        most = max(1, int(bytes_per_second / _READS_PER_SECOND))
        with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            if self.request is None:
                await self.read_request()
            while True:
                await self._wire.pull(most)
                while (frame := self._wire.take_frame()) is not None:
                    self.frames.append(frame)
                await trio.sleep(most / bytes_per_second)

    # --- whole scripts ---

    async def serve_echo(self) -> None:
        """Send every message back, until the connection ends in whatever way; then close.

        Accepts the client first, if no request was read. Raises nothing but the
        `AssertionError` of `receive`.

        Cancellation: may be partial. The stream stays open.
        """
        with suppress(PeerClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            if self.request is None:
                await self.accept()
            while True:
                await self.send(await self.receive())
        with suppress(trio.BrokenResourceError):
            await self.aclose()

    async def run_silent(self) -> None:
        """Read everything and answer nothing, until the client is gone: a black hole.

        Frames show up in `frames`. Without a handshake before, the client's request is
        read, and left without an answer too. Our end of the stream stays open.

        Cancellation: atomic.
        """
        with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            if self.request is None:
                await self.read_request()
            while True:
                await self.receive_frame()

    # --- ending ---

    async def aclose(self) -> None:
        """Close the stream in both directions; over TLS, with its goodbye.

        Cancellation: always closes.
        """
        await self.stream.aclose()

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Close as a server does: a close frame, the client's answer, EOF. What it says before that goes to `frames`.

        Args:
            code: Any number, allowed or not; `None` for an empty frame, whatever the reason.
            reason: At most 123 bytes of UTF-8 would be allowed.

        Raises:
            trio.EndOfChannel: If the client closed the stream instead of answering; our end is closed, too.

        Cancellation: may be partial. The stream stays open.
        """
        await self.send_close(code, reason)
        try:
            while (await self.receive_frame()).opcode != Opcode.CLOSE:
                pass
        except trio.EndOfChannel:
            await self.aclose()
            raise
        await self.aclose()

    async def half_close(self) -> None:
        """Send EOF, and go on receiving.

        Raises:
            TypeError: If the stream cannot do that; TLS cannot.

        Cancellation: atomic.
        """
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            raise TypeError(f"a {type(self.stream).__name__} cannot be half-closed")
        await self.stream.send_eof()

    def drop(self) -> None:
        """Close both directions now, without a close frame; what was sent arrives, then EOF.

        Works in memory, over sockets, and over TLS on either, whose goodbye is left out.
        """
        _sever(self.stream, reset=False)

    def reset(self) -> None:
        """Break the connection now, as RST does; what is on its way is destroyed.

        Works in memory, over sockets, and over TLS on either.
        """
        _sever(self.stream, reset=True)

    def freeze(self) -> None:
        """Let nothing through in either direction from now on, not even a FIN or an RST: a black hole.

        What both ends write is held as far as the buffers go. Other connections are not touched.

        Raises:
            TypeError: If the connection is not in memory.
        """
        _in_memory(self.stream).freeze()

    def thaw(self) -> None:
        """Let through again, first of all what was held."""
        _in_memory(self.stream).thaw()

    def _check(self, frame: Frame) -> None:
        if not frame.masked:
            raise AssertionError(f"the client sent a frame without a mask: {frame!r}")
        if frame.opcode not in _DEFINED:
            raise AssertionError(f"the client sent a reserved opcode: {frame!r}")
        if frame.opcode <= Opcode.BINARY:
            is_rest = frame.opcode == Opcode.CONTINUATION
            if is_rest != bool(self._parts):
                raise AssertionError(f"the client sent fragments out of order: {frame!r}")

    async def _on_ping(self, payload: bytes) -> None:
        if self.answer_pings:
            # What the client sent before it went away is still to be received.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.pong(payload)

    async def _on_close(self, payload: bytes) -> NoReturn:
        code = int.from_bytes(payload[:2]) if len(payload) >= 2 else None
        if self.answer_close:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if not self._close_sent:
                    await self.send_close(code)
                await self.aclose()
        raise PeerClosed(code, payload[2:].decode(errors="replace"))

    def _take_message(self) -> str | bytes:
        parts, self._parts = self._parts, []
        payload = b"".join(part.payload for part in parts)
        return payload.decode() if parts[0].opcode == Opcode.TEXT else payload


def peer_over(stream: trio.abc.Stream) -> Peer:
    """Give a scripted peer over any stream: an accepted socket, TLS, a tunnel.

    Whoever made the stream still has to close it, as `trio.serve_tcp` does.
    """
    return Peer(stream)
