"""`websockets` as a protocol core: its sans-I/O layer, fed frame by frame.

It does the opening handshake, answers pings, and judges whatever is neither a plain data frame nor a close frame. It
checks no UTF-8 and puts no fragments together; that is done here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, cast, final

import trio
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, Protocol, Side
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from trio_wsprim._frames import INVALID_DATA, TOO_BIG
from trio_wsprim._lane import OtherFrame, with_slack
from trio_wsprim._seam import Reception, Upgrade
from trio_wsprim._values import Message
from trio_wsprim.transports._answer import Answer
from trio_wsprim.transports._asked import Asked
from trio_wsprim.transports._fragments import Fragments
from trio_wsprim.transports._handshake import HandshakeFault
from trio_wsprim.transports._inflate import InflatingClientFactory, InflatingServerFactory
from trio_wsprim.transports._link import Breach
from trio_wsprim.transports._outgoing import Encode

_SWITCHING: Final = 101
# Only `ClientProtocol.connect()` would look at it; the request is made here, since it knows no further headers.
_NOWHERE: Final = parse_uri("ws://localhost/")
# Its debug log tells the headers of the request, `Authorization` too, and its error log what raises here anyway.
_SILENT: Final = logging.Logger("silent", logging.CRITICAL + 1)  # noqa: LOG001 - nobody should find it


@final
class WebsocketsCore:
    """One connection of the sans-I/O layer.

    Args:
        queue: Is given each frame, and at first the request, that is to be sent; must not wait.
        compresses: Whether to ask for compression.
    """

    __slots__ = (
        "_fragments",
        "_limit",
        "_protocol",
        "_queue",
        "_side",
        "compresses",
        "encode",
        "is_compressed",
        "subprotocol",
    )

    def __init__(self, queue: Callable[[bytes], None], *, compresses: bool = False) -> None:
        self._queue = queue
        self._side = Side.CLIENT
        self._protocol: Protocol | None = None
        self._limit: int | None = None
        self._fragments: Fragments | None = None
        self.compresses = compresses
        self.is_compressed = False
        self.encode: Encode | None = None
        self.subprotocol: str | None = None

    # -------------------------------------------------------------------------------- the handshake

    async def ask(self, nursery: trio.Nursery, upgrade: Upgrade) -> None:
        """See `HandshakeCore`."""
        self._limit = upgrade.max_message_bytes
        protocol = ClientProtocol(
            _NOWHERE,
            extensions=[InflatingClientFactory()] if self.compresses else None,
            subprotocols=cast("Sequence[Subprotocol]", upgrade.subprotocols) or None,
            # Beyond this it stops inflating. Exactly counted are what the lane sees, and what comes out here.
            max_size=with_slack(upgrade.max_message_bytes),
            logger=_SILENT,
        )
        request = protocol.connect()
        protocol.send_request(Request(upgrade.resource, _headers(request.headers, upgrade)))
        self._queue(b"".join(protocol.data_to_send()))
        self._protocol = protocol

    async def check(self, answer: Answer) -> None:
        """See `HandshakeCore`."""
        protocol = self._protocol
        assert isinstance(protocol, ClientProtocol), "nothing was asked"
        try:
            protocol.receive_data(answer.plain_head)
            error: Exception | None = protocol.handshake_exc
        except ValueError as raised:  # of zlib, for a window that it has not; up to websockets 17.0
            error = raised
        if error is not None:
            raise HandshakeFault(f"the server's 101 is no WebSocket handshake: {_fault(error)}") from error
        protocol.events_received()
        self.subprotocol = protocol.subprotocol
        self._open(protocol)

    async def welcome(self, nursery: trio.Nursery, asked: Asked, reception: Reception) -> None:
        """See `ServerCore`."""
        self._side = Side.SERVER
        self._limit = limit = reception.max_message_bytes
        self.subprotocol = asked.subprotocol(reception.subprotocols)
        protocol = ServerProtocol(
            extensions=[InflatingServerFactory()] if self.compresses else None,
            max_size=with_slack(limit),
            logger=_SILENT,
        )
        protocol.receive_data(asked.plain_head(self.subprotocol, has_extensions=self.compresses))
        requests = cast("Sequence[Request]", protocol.events_received())
        answer = protocol.accept(requests[0]) if requests else None
        if answer is None or answer.status_code != _SWITCHING:
            raise HandshakeFault("the extensions that it offers cannot be read") from protocol.handshake_exc
        if self.subprotocol is not None:
            answer.headers["Sec-WebSocket-Protocol"] = self.subprotocol
        protocol.send_response(answer)
        self._queue(b"".join(protocol.data_to_send()))
        self._open(protocol)

    def _open(self, protocol: ClientProtocol | ServerProtocol) -> None:
        self._protocol = protocol
        self.is_compressed = bool(protocol.extensions)
        if self.is_compressed:
            self.encode = self._encode
        else:
            self._protocol = None  # with all that it knows of the handshake; most connections need it no more

    def stop(self) -> None:
        """See `Core`. It has no tasks."""

    # -------------------------------------------------------------------------------- frames

    async def judge(self, frame: OtherFrame) -> Message | None:
        """See `Core`. Never waits."""
        if self._protocol is None:
            self._protocol = Protocol(self._side, state=OPEN, max_size=None, logger=_SILENT)
        protocol = self._protocol
        protocol.receive_data(frame.raw)
        if protocol.close_sent is not None:
            raise Breach(int(protocol.close_sent.code), protocol.close_sent.reason) from protocol.parser_exc
        for pong in protocol.data_to_send():
            self._queue(pong)
        message = None
        for event in cast("Sequence[Frame]", protocol.events_received()):
            message = self._collect(event)
        return message

    def _collect(self, frame: Frame) -> Message | None:
        """Put fragments together; give the message that is complete."""
        if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            self._fragments = Fragments(is_text=frame.opcode is Opcode.TEXT)
        elif frame.opcode is not Opcode.CONT:
            return None
        fragments = self._fragments
        assert fragments is not None, "websockets lets no fragment pass that continues nothing"
        try:
            fragments.add(bytes(frame.data), is_last=frame.fin)
            if self._limit is not None and fragments.size > self._limit:
                raise Breach(TOO_BIG, f"message of at least {fragments.size} bytes, at most {self._limit} are allowed")
        except UnicodeDecodeError as error:
            raise Breach(INVALID_DATA, "text that is not UTF-8") from error
        if not frame.fin:
            return None
        self._fragments = None
        return fragments.message()

    def _encode(self, message: Message) -> bytes:
        """Make the frame of a message, compressed."""
        assert self._protocol is not None, "this connection is not compressed"
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        return b"".join(self._protocol.data_to_send())


def _fault(error: Exception | None) -> str:
    """Say what it found wrong, in words that quote nothing of the peer, as its own do."""
    if isinstance(error, InvalidHeader):
        return f"its {error.name} is missing or wrong"
    return "it chose an extension that was not offered, or not so"


def _headers(made: Headers, upgrade: Upgrade) -> Headers:
    """Give the headers of the request: ours first, since `Host` should be, then those of the handshake."""
    headers = Headers({"Host": upgrade.host})
    for name, value in made.raw_items():
        if name != "Host":
            headers[name] = value
    for name, value in upgrade.headers:
        headers[name] = value
    return headers
