"""Compressed messages that come in (RFC 7692), inflated here, since `websockets` would lose some of them.

A sender may end its deflate stream at a message's end (7.2.3.4 there) or within one, and begin another. `websockets`
inflates all that follows to nothing, and says nothing.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, final

from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from websockets.extensions import ClientExtensionFactory, Extension, ServerExtensionFactory
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.typing import ExtensionParameter

# What the end of each message was stripped of (RFC 7692, 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"
# A server holds many compressors: a window of 4 KiB takes an eighth of the memory, and loses little.
_SERVER_WINDOW_BITS: Final = 12
_SERVER_SETTINGS: Final[dict[str, Any]] = {"memLevel": 5}
# More than any sender makes of one frame. Each costs us some 5 µs and a copy of what follows it, and a peer two bytes.
_MOST_STREAMS: Final = 64


class TooLarge(Exception):
    """More would come out than is allowed."""


@final
class Inflater:
    """Inflates one message after the other. Pure.

    A stream that follows another one starts without its window, as those of all known senders do.

    Args:
        window_bits: The base-2 logarithm of the sender's window.
        keeps_context: Whether a message may refer to those before it.
    """

    __slots__ = ("_has_begun", "_keeps_context", "_stream", "_window_bits")

    def __init__(self, window_bits: int, *, keeps_context: bool) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._stream = zlib.decompressobj(-self._window_bits)
        self._has_begun = False

    def begin(self) -> None:
        """Begin a message."""
        if not self._keeps_context:
            self._begin_stream()

    def inflate(self, data: bytes, *, is_last: bool, most: int | None) -> bytes:
        """Inflate a fragment.

        Args:
            data: Its payload.
            is_last: Whether it ends the message.
            most: How many bytes may come of it; `None` for no limit.

        Raises:
            TooLarge: More would come of it.
            zlib.error: It is no deflate stream, or too many of them.
        """
        parts: list[bytes] = []
        left = data + _TAIL if is_last else data
        for _ in range(_MOST_STREAMS):
            if not left or (is_last and left == _TAIL and not self._has_begun):
                return b"".join(parts)  # a stream that has ended by itself wants no tail
            # One byte more than allowed: what has just enough room need not be all. To zlib, 0 is no limit.
            part = self._stream.decompress(left, 0 if most is None else min(most + 1, sys.maxsize))
            if most is not None:
                most -= len(part)
                if most < 0:
                    raise TooLarge
            parts.append(part)
            self._has_begun = True
            left = self._stream.unused_data
            if self._stream.eof:
                self._begin_stream()
        raise zlib.error(f"more than {_MOST_STREAMS} deflate streams in one frame")


@final
class InflatingDeflate(Extension):
    """`permessage-deflate` as `websockets` does it, but for what comes in.

    Args:
        agreed: What was agreed on; compresses what goes out.
    """

    name = PerMessageDeflate.name

    def __init__(self, agreed: PerMessageDeflate) -> None:
        self._agreed = agreed
        self._inflater = Inflater(agreed.remote_max_window_bits, keeps_context=not agreed.remote_no_context_takeover)
        self._is_compressed = False

    def encode(self, frame: Frame) -> Frame:
        """See `Extension`."""
        return self._agreed.encode(frame)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """See `Extension`."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        if frame.opcode is not Opcode.CONT:
            self._is_compressed = frame.rsv1
            self._inflater.begin()
        elif self._is_compressed and frame.rsv1:
            raise ProtocolError("only the first fragment of a message says that it is compressed")
        if not self._is_compressed:
            return frame
        try:
            data = self._inflater.inflate(bytes(frame.data), is_last=frame.fin, most=max_size)
        except TooLarge:
            assert max_size is not None, "nothing is too large without a limit"
            raise PayloadTooBig(None, max_size) from None
        except zlib.error as error:
            raise ProtocolError(f"what came cannot be inflated: {error}") from error
        self._is_compressed = not frame.fin
        return replace(frame, data=data, rsv1=False)


@final
class InflatingClientFactory(ClientExtensionFactory):
    """Offers `permessage-deflate`."""

    name = PerMessageDeflate.name

    def __init__(self) -> None:
        self._offer = ClientPerMessageDeflateFactory(client_max_window_bits=True)

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """See `ClientExtensionFactory`."""
        return self._offer.get_request_params()

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        """See `ClientExtensionFactory`."""
        return InflatingDeflate(self._offer.process_response_params(params, accepted_extensions))


@final
class InflatingServerFactory(ServerExtensionFactory):
    """Takes offers of `permessage-deflate`."""

    name = PerMessageDeflate.name

    def __init__(self) -> None:
        self._taker = ServerPerMessageDeflateFactory(
            server_max_window_bits=_SERVER_WINDOW_BITS,
            client_max_window_bits=_SERVER_WINDOW_BITS,
            compress_settings=_SERVER_SETTINGS,
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        """See `ServerExtensionFactory`."""
        if ("server_max_window_bits", "8") in params:  # which zlib has not, and older `websockets` do not know
            raise NegotiationError("a window of 256 bytes")
        answer, agreed = self._taker.process_request_params(params, accepted_extensions)
        return answer, InflatingDeflate(agreed)
