"""What tests of WebSocket code need: a network in memory, and a peer that follows a script.

```python
async def test_greets(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    async with create_ws("ws://example.test/", open_stream=network.open_stream) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.send("hello")
        assert await peer.receive() == "hello"
        peer.reset()
```

All but `FaultProxy`, which sits between real sockets, runs on trio's clock, so that a `trio.testing.MockClock` makes
hours pass at once.
"""

from ._codec import Frame, Opcode, Request, encode_frame
from ._contract import check_transport, pair_over
from ._log import EntryKind, FrameLog, LogEntry, Sender
from ._memory import MemoryStream, Way, memory_stream_pair
from ._network import Dial, MemoryNetwork
from ._peer import Peer, PeerClosed, peer_over
from ._promises import MakePair
from ._proxy import FaultProxy, ProxyStatistics
from ._transport import MemoryTransport

__all__ = [
    "Dial",
    "EntryKind",
    "FaultProxy",
    "Frame",
    "FrameLog",
    "LogEntry",
    "MakePair",
    "MemoryNetwork",
    "MemoryStream",
    "MemoryTransport",
    "Opcode",
    "Peer",
    "PeerClosed",
    "ProxyStatistics",
    "Request",
    "Sender",
    "Way",
    "check_transport",
    "encode_frame",
    "memory_stream_pair",
    "pair_over",
    "peer_over",
]
