"""A scripted peer: RFC 6455 by hand, so that a test can break every rule of it."""

import enum
import http
import socket
import struct
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from typing import Final, NoReturn, Protocol, cast, final, runtime_checkable

import trio

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
# A mask need not be random here, and a constant one keeps runs alike (RFC 6455, section 5.7).
_MASK: Final = b"\x37\xfa\x21\x3d"


class Opcode(enum.IntEnum):
    """The opcodes that RFC 6455 defines; all others are reserved."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_DEFINED: Final[frozenset[int]] = frozenset(Opcode)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came from the client, its payload unmasked.

    Attributes:
        opcode: Usually one of `Opcode`, but a misbehaving client may send any up to 15.
        rsv: The three reserved bits as a number; 4 is RSV1, the mark of a compressed message.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = True
    rsv: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP request.

    Attributes:
        path: As sent, with its query.
        headers: Pairs of lower-case name and value, in the order sent.
        raw: The head as it came, with the empty line that ends it.
    """

    method: str
    path: str
    headers: list[tuple[str, str]]
    raw: bytes

    def header(self, name: str) -> str | None:
        """Give the first value of a header, whose name is in lower case; `None` without one."""
        return next((value for given, value in self.headers if given == name), None)


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


def encode_frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = False) -> bytes:
    """Write a frame as bytes, to send as they are, in pieces, or garbled.

    Args:
        rsv: The three reserved bits as a number, 0 to 7; 4 is RSV1.
        masked: Whether to mask it, as servers must not and clients must.
    """
    first = fin << 7 | rsv << 4 | opcode
    size = len(payload)
    mask_bit = masked << 7
    if size < 126:
        head = bytes([first, mask_bit | size])
    elif size < 2**16:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    return head + (_MASK + _apply_mask(payload, _MASK) if masked else payload)


def _apply_mask(payload: bytes, mask: bytes) -> bytes:
    # One big exclusive-or: byte by byte, a megabyte would take a tenth of a second.
    size = len(payload)
    keys = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")
    return mixed.to_bytes(size, "little")


def _decode_frame(data: bytearray) -> tuple[Frame, int] | None:
    """Read the first frame of `data` and its whole size; `None` if it is not all there."""
    # Zeros for what is missing: the size that comes out is then at least the
    # size of the head, and that alone tells that more has to come.
    head = bytes(data[:14]).ljust(14, b"\0")
    masked = bool(head[1] & 0x80)
    size = head[1] & 0x7F
    start = 2
    if size == 126:
        size, start = int.from_bytes(head[2:4]), 4
    elif size == 127:
        size, start = int.from_bytes(head[2:10]), 10
    mask = head[start : start + 4] if masked else bytes(4)
    start += 4 * masked
    if len(data) < start + size:
        return None
    payload = _apply_mask(bytes(data[start : start + size]), mask)
    frame = Frame(head[0] & 0x0F, payload, bool(head[0] & 0x80), masked, head[0] >> 4 & 0x07)
    return frame, start + size


def _parse_request(raw: bytes) -> Request:
    line, *fields = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, path, *_ = *line.split(" "), ""
    pairs = (field.partition(":") for field in fields)
    return Request(method, path, [(name.lower(), value.strip()) for name, _, value in pairs], raw)


def _encode_response(status: int, reason: str | None, headers: Iterable[tuple[str, str]]) -> bytes:
    if reason is None:
        known = {item.value: item.phrase for item in http.HTTPStatus}
        reason = known.get(status, "")
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _to_payload(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _opcode_of(message: str | bytes) -> Opcode:
    return Opcode.TEXT if isinstance(message, str) else Opcode.BINARY


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

    async def pull(self) -> None:
        """Wait for more bytes; raise `trio.EndOfChannel` at EOF."""
        data = await self.stream.receive_some()
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
        "_parts",
        "_wire",
        "answer_close",
        "answer_pings",
        "frames",
        "request",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._wire = _Wire(stream)
        self._parts: list[Frame] = []
        self._close_sent = False
        self.request: Request | None = None
        self.frames: list[Frame] = []
        self.answer_pings = True
        self.answer_close = True

    @property
    def stream(self) -> trio.abc.Stream:
        """The stream underneath, for instance to put TLS over it: `peer_over(SSLStream(...))`."""
        return self._wire.stream

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
        self.request = _parse_request(self._wire.take(end + 4))
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
            key = (request.header("sec-websocket-key") or "") + _GUID
            accept_key = b64encode(sha1(key.encode(), usedforsecurity=False).digest()).decode()
        answer = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key),
        ]
        if subprotocol is not None:
            answer.append(("Sec-WebSocket-Protocol", subprotocol))
        await self._wire.send(_encode_response(101, None, [*answer, *headers]))
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
        answer = list(headers)
        if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in answer}:
            answer.append(("Content-Length", str(len(body))))
        await self._wire.send(_encode_response(status, reason, answer) + body)
        return request

    # --- sending ---

    async def send(self, message: str | bytes) -> None:
        """Send a message in one frame.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        await self.send_frame(_opcode_of(message), _to_payload(message))

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None:
        r"""Send one message with each part in a frame of its own, in one write.

        Args:
            parts: At least one. The type of the first decides between text and binary, so
                `["", b"\xc3", b"\xa9"]` is a text cut within a character.

        Cancellation: may be partial, and then nothing sensible can follow.
        """
        opcodes = [_opcode_of(parts[0])] + [Opcode.CONTINUATION] * (len(parts) - 1)
        frames = [
            encode_frame(opcode, _to_payload(part), fin=number == len(parts))
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

    # --- receiving ---

    async def receive_frame(self) -> Frame:
        """Receive the next frame, whatever it is, and answer nothing.

        Raises:
            trio.EndOfChannel: If the client closed; `unparsed` is what it left unfinished.

        Cancellation: atomic.
        """
        while (decoded := _decode_frame(self._wire.unused)) is None:
            await self._wire.pull()
        frame, size = decoded
        self._wire.take(size)
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
