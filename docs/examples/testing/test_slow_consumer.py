"""Your slow consumer."""

from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

from trio_wsprim import Buffer, create_ws
from trio_wsprim.testing import MemoryNetwork, Peer


async def show_prices(url: str, show: Callable[[str | bytes], Awaitable[object]]) -> None:
    """Your code: an old price is worth nothing, so a slow display skips some."""
    async with create_ws(url, inbox=Buffer(max_messages=1, max_bytes=2**20, when_full="drop_oldest")) as ws:
        async for price in ws:
            await show(price)


async def post_everything(url: str) -> None:
    """Your code: sends more than a slow server takes, and must not swallow memory meanwhile."""
    async with create_ws(url, outbox=Buffer(max_messages=10)) as ws:
        for _ in range(1000):
            await ws.send(b"x" * 1000)


async def test_a_slow_display_is_never_late(ws_network: MemoryNetwork, autojump_clock: MockClock) -> None:
    shown: list[tuple[float, str | bytes]] = []

    async def show(price: str | bytes) -> None:
        shown.append((trio.current_time(), price))
        await trio.sleep(9.25)

    async def a_price_each_second(peer: Peer) -> None:
        await peer.accept()
        for second in range(30):
            await peer.send(f"{second}")
            await trio.sleep(1)

    with ws_network.replacing_tcp():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws_network.serve, a_price_each_second)
            await show_prices("wss://prices.example/", show)
            nursery.cancel_scope.cancel()

    assert shown == [(0, "0"), (9.25, "9"), (18.5, "18"), (27.75, "27"), (37, "29")]


async def test_a_slow_server_slows_us_down(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=4096)

    async def read_slowly(peer: Peer) -> None:
        await peer.accept()
        await peer.read_slowly(bytes_per_second=1000)

    with network.replacing_tcp():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve, read_slowly)
            with trio.move_on_after(60):
                await post_everything("wss://slow.example/")
            nursery.cancel_scope.cancel()

    # What it read in a minute, and what its buffer took; the rest was never written.
    assert 55 <= len(network.log.messages(sender="client")) <= 65
