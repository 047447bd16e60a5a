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

from ._network import Dial, MemoryNetwork, MemoryStream, memory_stream_pair
from ._peer import Frame, Opcode, Peer, PeerClosed, Request, encode_frame, peer_over
from ._proxy import FaultProxy, ProxyStatistics

__all__ = [
    "Dial",
    "FaultProxy",
    "Frame",
    "MemoryNetwork",
    "MemoryStream",
    "Opcode",
    "Peer",
    "PeerClosed",
    "ProxyStatistics",
    "Request",
    "encode_frame",
    "memory_stream_pair",
    "peer_over",
]
