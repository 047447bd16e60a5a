"""A transport of your own, checked against the contract of the seam."""

from trio.testing import MockClock

from trio_wsprim import WebsocketsTransport as MyTransport
from trio_wsprim.testing import check_transport, pair_over


async def test_my_transport(autojump_clock: MockClock) -> None:
    await check_transport(pair_over(MyTransport()))
