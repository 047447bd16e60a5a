"""A transport for networks in memory: messages travel as they are, and nobody encodes, masks or decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import trio

from trio_wsprim._errors import ConnectionFailed
from trio_wsprim._seam import Link, Transport, Upgrade
from trio_wsprim._wire import open_wire
from trio_wsprim.transports import default_transport
from trio_wsprim.transports._answer import Answer, read_answer

from ._codec import accept_key_for, encode_request
from ._link import MemoryLink
from ._memory import MemoryStream

# The one of RFC 6455, 1.3. There is no chance in it, so that runs are alike.
_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="


@final
@dataclass(frozen=True, slots=True)
class MemoryTransport:
    """WebSocket over the streams of a `MemoryNetwork`, which spares what encoding, masking and decoding cost.

    The handshake is the real one. After it a message is handed over as it is, and counts as large as its frame would
    be; only for what finds no room a frame is made, so that it can be cut. What a `Peer` says in raw bytes, in
    fragments or against the rules is read as any client has to read it, with the same close codes. So the code above
    sees no difference.

    Args:
        otherwise: For streams that are not in memory, such as TLS over one; `None` for the best that is installed.
    """

    otherwise: Transport | None = None

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        """See `trio_wsprim.abc.Transport`."""
        if not isinstance(stream, MemoryStream):
            return await (self.otherwise or default_transport()).connect(nursery, stream, upgrade)
        try:
            answer = await _shake_hands(stream, upgrade)
            return MemoryLink(nursery, stream, answer, upgrade.max_message_bytes)
        except BaseException:
            stream.close()
            raise


async def _shake_hands(stream: MemoryStream, upgrade: Upgrade) -> Answer:
    stream.take_parcels()
    wire = open_wire(stream)
    try:
        await stream.send_all(_write_request(upgrade))
        answer = await read_answer(wire)
    except trio.BrokenResourceError as error:
        raise ConnectionFailed("the connection broke during the handshake") from error
    fault = answer.fault(upgrade.subprotocols)
    if fault is None and ("sec-websocket-accept", accept_key_for(_KEY)) not in answer.headers:
        fault = "its Sec-WebSocket-Accept is missing or wrong"
    if fault is not None:
        raise ConnectionFailed(f"the server's 101 is no WebSocket handshake: {fault}", permanent=True)
    return answer


def _write_request(upgrade: Upgrade) -> bytes:
    headers = [
        ("Host", upgrade.host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", _KEY),
        ("Sec-WebSocket-Version", "13"),
        *([("Sec-WebSocket-Protocol", ", ".join(upgrade.subprotocols))] if upgrade.subprotocols else []),
        *upgrade.headers,
    ]
    return encode_request(upgrade.resource, headers)
