"""TLS over a TCP socket of our own, by memory: what comes out of it is known byte for byte.

`trio.SSLStream` does not tell how much of a write went out before it failed, and a message takes it three passes of
the scheduler. Over any stream that is not a TCP socket it is used all the same.
"""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress
from typing import Final, final

import trio

# One TLS record (RFC 8446, 5.1): the peer can read nothing of it before all of it is there.
_RECORD_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 64 * 1024


@final
class TlsSession:
    """One side of a TLS connection, without a network: bytes in, bytes out.

    Args:
        context: Says whom to trust, and who we are.
        hostname: Whom the certificate must name; `None` if we are the server.

    Attributes:
        cipher: What the network is to take next.
    """

    __slots__ = ("_fault", "_in", "_is_drained", "_object", "_out", "_produced", "_records", "_sent", "cipher")

    def __init__(self, context: ssl.SSLContext, hostname: str | None) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side=hostname is None, server_hostname=hostname)
        # Bytes of cipher, ever. Of each record that is not through: where it ends, and how much plain text it holds.
        self._produced = 0
        self._sent = 0
        self._records: deque[tuple[int, int]] = deque()
        self.cipher = memoryview(b"")
        # Whether nothing more can be read before more comes in.
        self._is_drained = False
        # What is wrong with what came in, once all before it has been read.
        self._fault: ssl.SSLError | None = None

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as what came in allows; whether it is done.

        Raises:
            ssl.SSLError: The peer is not whom it should be, or speaks no TLS.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._collect()  # also what tells the peer why we refuse it
        return True

    def feed(self, data: bytes) -> None:
        """Take what came in; `b""` for the end of the stream."""
        self._is_drained = False
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def read(self, max_bytes: int | None = None) -> bytes | None:
        """Give plain text that is complete, at most `max_bytes`; `b""` at its end, `None` if more must come in first.

        Raises:
            ssl.SSLError: The stream was tampered with, or is no TLS.
        """
        if self._fault is not None:
            raise self._fault
        if self._is_drained:
            return None
        parts: list[bytes] = []
        try:
            while part := self._object.read(max_bytes or _READ_BYTES):
                parts.append(part)
                # To ask once more than needed costs an exception, a tenth of a round trip.
                self._is_drained = not (self._in.eof or self._in.pending or self._object.pending())
                if max_bytes is not None or self._is_drained:
                    break
            else:
                return b"".join(parts)
        except ssl.SSLWantReadError:
            self._is_drained = True
            if not parts:
                return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass  # a missing close_notify is a lost connection, as without TLS
        except ssl.SSLError as error:
            self._fault = error
            if not parts:
                raise
        finally:
            if self._out.pending:
                self._collect()  # an answer of TLS's own, such as to a key update
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def encrypt(self, data: bytes | memoryview) -> None:
        """Add plain text to what the network is to take."""
        plain = memoryview(data)
        for start in range(0, len(plain), _RECORD_BYTES):
            record = plain[start : start + _RECORD_BYTES]
            self._object.write(record)
            self._records.append((self._produced + self._out.pending, len(record)))
        self._collect()

    def _collect(self) -> None:
        fresh = self._out.read()
        self._produced += len(fresh)
        self.cipher = memoryview(b"".join((self.cipher, fresh)) if self.cipher else fresh)

    def sent(self, size: int) -> int:
        """The network has taken so many bytes of `cipher`; tell how much plain text is through by that."""
        self.cipher = self.cipher[size:]
        self._sent += size
        plain = 0
        while self._records and self._records[0][0] <= self._sent:
            plain += self._records.popleft()[1]
        return plain


@final
class TlsStream(trio.abc.Stream):
    """A TLS connection over a TCP socket, as a trio stream. One task may send while another receives.

    Args:
        stream: Its own from now on.
        context: As for `TlsSession`.
        hostname: As for `TlsSession`.

    Attributes:
        stream: The TCP connection.
        session: What speaks TLS over it.
    """

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, hostname: str | None) -> None:
        self.stream = stream
        self.session = TlsSession(context, hostname)

    async def do_handshake(self) -> None:
        """Do the TLS handshake.

        Raises:
            ssl.SSLError: The peer is not whom it should be, or speaks no TLS.
            trio.BrokenResourceError: The network lost the connection.

        Cancellation: may be partial; the stream is fit only for `aclose`.
        """
        while not await self._shake_hands():
            data = await self.stream.receive_some(_READ_BYTES)
            if not data:
                raise trio.BrokenResourceError("the peer hung up during the TLS handshake")
            self.session.feed(data)

    async def _shake_hands(self) -> bool:
        try:
            is_done = self.session.shake_hands()
        except ssl.SSLError:
            with suppress(trio.BrokenResourceError):  # the peer need not stay to hear why
                await self._send()
            raise
        await self._send()
        return is_done

    async def _send(self) -> None:
        cipher = self.session.cipher
        await self.stream.send_all(cipher)
        self.session.sent(len(cipher))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        self.session.encrypt(bytes(data))
        await self._send()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes!r}")
        await trio.lowlevel.checkpoint()  # what is there already is given without waiting
        try:
            while (data := self.session.read(max_bytes or _READ_BYTES)) is None:
                self.session.feed(await self.stream.receive_some(_READ_BYTES))
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("what came in is not what TLS has sent") from error
        return data

    async def aclose(self) -> None:
        """Close at once: the closing handshake of WebSocket has said all that there is to say."""
        await trio.aclose_forcefully(self.stream)


async def start_tls(stream: trio.abc.Stream, context: ssl.SSLContext, hostname: str | None) -> trio.abc.Stream:
    """Do the TLS handshake over a stream, which is closed if that fails.

    Args:
        stream: The new one's own from now on.
        context: As for `TlsSession`.
        hostname: As for `TlsSession`.

    Raises:
        ssl.SSLError: The peer is not whom it should be, or speaks no TLS.
        trio.BrokenResourceError: The network lost the connection, or, over a stream that is no socket, either.

    Cancellation: always closes the stream.
    """
    try:
        # A missing close_notify is a lost connection, as without TLS.
        secure = (
            TlsStream(stream, context, hostname)
            if isinstance(stream, trio.SocketStream)
            else trio.SSLStream(
                stream, context, server_hostname=hostname, server_side=hostname is None, https_compatible=True
            )
        )
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure
