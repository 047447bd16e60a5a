"""The seam's contract as one check, for every transport, ours and others'."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim._seam import Link, Transport, Upgrade

from . import _promises_of_closing, _promises_of_messages
from ._network import MemoryNetwork
from ._peer import Peer
from ._promises import LINK_PROMISES, OPENING_PROMISES, MakePair, Promise, S, same

# They are where they are written down; to import them is to make them.
_WRITTEN_IN: Final = (_promises_of_messages, _promises_of_closing)
# Seconds of virtual time: whoever takes this long hangs.
_PATIENCE: Final = 1000.0


@final
@dataclass(frozen=True, slots=True)
class pair_over:  # noqa: N801 - reads as a function: `check_transport(pair_over(MyTransport()))`
    """Make pairs for `check_transport`, of a transport that clients use.

    Args:
        transport: Connects over the streams of a `MemoryNetwork`.
    """

    transport: Transport

    def __call__(
        self, *, buffer_size: int = 65536, max_message_bytes: int | None = 2**20
    ) -> AbstractAsyncContextManager[tuple[Link, Peer]]:
        """See `MakePair`."""
        return self._open(buffer_size, max_message_bytes)

    @asynccontextmanager
    async def _open(self, buffer_size: int, max_message_bytes: int | None) -> AsyncGenerator[tuple[Link, Peer]]:
        network = MemoryNetwork(buffer_size=buffer_size)
        upgrade = Upgrade(host="example.test", resource="/", max_message_bytes=max_message_bytes)
        async with trio.open_nursery() as nursery:
            stream = await network.open_stream("example.test", 80)
            peer = await network.accept()
            nursery.start_soon(peer.accept)
            link = await self.transport.connect(nursery, stream, upgrade)
            try:
                yield link, peer
            finally:
                await link.abort()
                nursery.cancel_scope.cancel()
        same(network.live, 0)


async def check_transport(make_pair: MakePair) -> None:
    """Check that a transport's links do what the seam promises; see `trio_wsprim.abc.Link`.

    Order, batches, cancellation at every point, close codes, size limits, breaches of the protocol, pings, use by
    several tasks, ends from both sides, and that nothing is left behind. With `pair_over`, handshakes that fail, too.

    Args:
        make_pair: `pair_over(transport)`, or a function of your own for links that come about otherwise.

    Raises:
        AssertionError: If a promise is not kept; a note tells which. Whatever else a link raises comes out, too.
        RuntimeError: If trio's clock is no `MockClock`: some checks wait for minutes.

    Cancellation: may be partial.
    """
    if not isinstance(trio.lowlevel.current_clock(), MockClock):
        raise RuntimeError("check_transport needs a MockClock with an autojump_threshold")
    for promise in LINK_PROMISES:
        await check_promise(promise, make_pair)
    if isinstance(make_pair, pair_over):
        for opening in OPENING_PROMISES:
            await check_promise(opening, make_pair.transport)


async def check_promise(promise: Promise[S], subject: S) -> None:
    """Check one promise, and that it leaves no task behind."""
    await wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    try:
        with trio.fail_after(_PATIENCE):
            await promise.keep(subject)
        await wait_all_tasks_blocked()
        same(trio.lowlevel.current_statistics().tasks_living, before)
    except BaseException as error:
        error.add_note(f"the promise that was not kept: {promise.name}")
        raise
