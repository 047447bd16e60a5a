"""The check of the contract finds transports that break it, and says which promise they broke."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from trio_wsprim import ConnectionClosed
from trio_wsprim.abc import Incoming, Link, Outgoing, Upgrade
from trio_wsprim.testing import MemoryTransport, Peer, check_transport, pair_over
from trio_wsprim.testing._contract import check_promise
from trio_wsprim.testing._promises import LINK_PROMISES, OPENING_PROMISES


class Flawed:
    """A link with a flaw; what a subclass does not name is the good link's."""

    def __init__(self, link: Link, nursery: trio.Nursery) -> None:
        self.link = link
        self.nursery = nursery

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)


class Reverses(Flawed):
    async def send(self, batch: Sequence[Outgoing]) -> None:
        await self.link.send(batch[::-1])


class Splits(Flawed):
    def __init__(self, link: Link, nursery: trio.Nursery) -> None:
        super().__init__(link, nursery)
        self.rest: list[Incoming] = []

    async def receive(self) -> Sequence[Incoming]:
        if not self.rest:
            self.rest = list(await self.link.receive())
        await trio.lowlevel.checkpoint()
        return [self.rest.pop(0)]


class LosesWhenCancelled(Flawed):
    async def receive(self) -> Sequence[Incoming]:
        found = await self.link.receive()
        await trio.lowlevel.checkpoint()
        return found


class Miscounts(Flawed):
    @property
    def items_sent(self) -> int:
        return self.link.items_sent + 1


class SwallowsCodes(Flawed):
    async def receive(self) -> Sequence[Incoming]:
        try:
            return await self.link.receive()
        except ConnectionClosed as error:
            raise ConnectionClosed(1000) from error


class RaisesTheUsual(Flawed):
    async def receive(self) -> Sequence[Incoming]:
        try:
            return await self.link.receive()
        except ConnectionClosed as error:
            raise trio.BrokenResourceError from error


class HasNoEnd(Flawed):
    async def receive(self) -> Sequence[Incoming]:
        with suppress(ConnectionClosed):
            return await self.link.receive()
        await trio.sleep_forever()
        raise AssertionError("unreachable")


class KeepsTheStream(Flawed):
    async def abort(self) -> None:
        await trio.lowlevel.checkpoint()


class LeavesATask(Flawed):
    async def abort(self) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 3600)
        await self.link.abort()


class SaysNothing(Flawed):
    async def aclose(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()


class HasNoLimit:
    """A transport that forgets the limit."""

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        return await MemoryTransport().connect(nursery, stream, Upgrade(host=upgrade.host, resource=upgrade.resource))


class LeavesTheStreamOpen:
    """A transport that does not close what it could not open."""

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        kept = trio.StapledStream(stream, stream)
        kept.aclose = trio.lowlevel.checkpoint  # type: ignore[method-assign]
        return await MemoryTransport().connect(nursery, kept, upgrade)


FLAWS = {
    Reverses: "batches keep their order both ways",
    Splits: "what came together is received together",
    LosesWhenCancelled: "a message that comes in the moment of a cancellation is not lost",
    Miscounts: "a batch of any size is taken: 0",
    SwallowsCodes: "a peers close is told and answered: 1001",
    RaisesTheUsual: "bytes one by one are the same messages",
    HasNoEnd: "bytes one by one are the same messages",
    KeepsTheStream: "a batch of any size is taken: 0",
    LeavesATask: "a batch of any size is taken: 0",
    SaysNothing: "a receive cancelled at any point goes on from there: 1",
}


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_flawed_link_is_found_out(flaw: type[Flawed], autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def make_pair(**options: Any) -> AsyncGenerator[tuple[Link, Peer]]:
        good = pair_over(MemoryTransport())
        flawed: list[Flawed] = []

        class FlawedTransport:
            async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
                flawed.append(flaw(await good.transport.connect(nursery, stream, upgrade), nursery))
                return cast("Link", flawed[0])

        async with pair_over(FlawedTransport())(**options) as pair:
            yield pair

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - what a flaw raises is its own matter
        await check_transport(make_pair)
    assert caught.value.__notes__[0].startswith("the promise that was not kept: ")

    (promise,) = [promise for promise in LINK_PROMISES if promise.name == FLAWS[flaw]]
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - likewise
        await check_promise(promise, make_pair)
    assert caught.value.__notes__ == [f"the promise that was not kept: {promise.name}"]


async def test_a_transport_without_a_limit_is_found_out(autojump_clock: MockClock) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - likewise
        await check_transport(pair_over(HasNoLimit()))

    assert caught.value.__notes__ != []


async def test_an_opening_that_leaves_its_stream_open_is_found_out(autojump_clock: MockClock) -> None:
    (promise,) = [each for each in OPENING_PROMISES if each.name == "a failed opening closes the stream: garbage"]
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - likewise
        await check_promise(promise, LeavesTheStreamOpen())

    assert caught.value.__notes__ == [f"the promise that was not kept: {promise.name}"]


async def test_links_that_come_about_otherwise_are_checked_too(autojump_clock: MockClock) -> None:
    made: list[dict[str, Any]] = []

    @asynccontextmanager
    async def make_pair(**options: Any) -> AsyncGenerator[tuple[Link, Peer]]:
        made.append(options)
        async with pair_over(MemoryTransport())(**options) as pair:
            yield pair

    await check_transport(make_pair)

    assert len(made) > 80
    assert {"buffer_size": 10} in made


async def test_a_real_clock_is_refused() -> None:
    with pytest.raises(RuntimeError, match="needs a MockClock"):
        await check_transport(pair_over(MemoryTransport()))
