"""SPEC, section 2, and issue 2, point 7: leaving the block, in every way there is."""

from __future__ import annotations

import gc
import signal
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import (
    Buffer,
    ReadyState,
    create_reconnecting_ws,
    create_ws,
    make_heartbeat_ws,
    make_ws,
)
from trio_wsprim.testing import MemoryNetwork, Peer, PeerClosed

from .sockets import URL, accept, opened

CREATORS = [create_ws, create_reconnecting_ws]


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Find what was neither awaited nor closed: what the collector complains of is an error here."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


async def count_tasks() -> int:
    """Count the tasks of the run, its own included, once they have come to rest."""
    await wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().tasks_living


async def serve(network: MemoryNetwork, *, answers_close: bool = True) -> None:
    peer = await network.accept()
    peer.answer_close = answers_close
    await (peer.serve_echo() if answers_close else run_deaf(peer))


async def run_deaf(peer: Peer) -> None:
    await peer.accept()
    await peer.run_silent()


@pytest.fixture(params=CREATORS, ids=["plain", "reconnecting"])
def create(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_break_and_return_are_fine(create: Any, autojump_clock: MockClock) -> None:
    tasks = await count_tasks()
    network = MemoryNetwork()

    async def get() -> str:
        async with create(URL, open_stream=network.open_stream) as ws:
            await ws.send("x")
            async for message in ws:
                return str(message)
        raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, network)
        assert await get() == "x"
        assert network.live == 0
        nursery.start_soon(serve, network)
        for _ in range(3):
            async with create(URL, open_stream=network.open_stream) as ws:
                await ws.send("y")
                assert await ws.receive() == "y"
                break
        assert network.live == 0
    assert await count_tasks() == tasks
    assert trio.current_time() < 1


class Oops(Exception):
    pass


def a_group() -> BaseException:
    return ExceptionGroup("mine", [ExceptionGroup("inner", [Oops("x")])])


@pytest.mark.parametrize("make_error", [Oops, a_group, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("phase", ["connecting", "open", "closed"])
async def test_the_user_s_exception_comes_out_unchanged(
    create: Any, make_error: Any, phase: str, autojump_clock: MockClock
) -> None:
    tasks = await count_tasks()
    network = MemoryNetwork()
    error = make_error()
    context, cause = ValueError("context"), ValueError("cause")
    error.__context__, error.__cause__ = context, cause
    ws: Any = None
    caught: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            async with create(URL, open_stream=network.open_stream) as ws:
                if phase != "connecting":
                    nursery.start_soon(serve, network)
                    await ws.wait_open()
                if phase == "closed":
                    await ws.aclose()
                raise error
        except BaseException as raised:  # noqa: BLE001 - to look at it
            caught = raised
    assert caught is error
    assert error.__context__ is context
    assert error.__cause__ is cause
    if isinstance(error, ExceptionGroup):
        assert error.message == "mine"
    assert network.live == 0
    assert ws.state.value is ReadyState.CLOSED
    assert await count_tasks() == tasks


async def test_an_error_of_the_socket_that_the_body_raises_comes_out_alone(autojump_clock: MockClock) -> None:
    with pytest.raises(trio.EndOfChannel):
        async with opened(MemoryNetwork()) as (ws, peer):
            await peer.send_close()
            await ws.receive()


async def test_leaving_by_an_exception_skips_the_draining_but_says_goodbye(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=64)
    async with trio.open_nursery() as nursery:
        with pytest.raises(Oops):
            async with create_ws(URL, open_stream=network.open_stream) as ws:
                peer = await accept(network, ws)
                for _ in range(1000):
                    await ws.send("x" * 1000)
                await wait_all_tasks_blocked()

                @nursery.start_soon
                async def read() -> None:
                    with pytest.raises(PeerClosed) as caught:
                        while True:
                            await peer.receive()
                    assert caught.value.code == 1001

                raise Oops
        assert len(ws.undelivered) > 900
        assert trio.current_time() < 5.2


async def test_leaving_by_an_exception_ends_an_attempt_at_once(create: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.stall()
    with pytest.raises(Oops):
        async with create(URL, open_stream=network.open_stream) as ws:
            await ws.send("x")
            await wait_all_tasks_blocked()
            raise Oops
    assert trio.current_time() == 0
    assert [each.message for each in ws.undelivered] == ["x"]


@pytest.mark.parametrize("how", ["end", "raise"])
async def test_a_peer_that_never_answers_our_close_holds_us_no_longer_than_the_timeout(
    create: Any, how: str, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def deaf() -> None:
            await serve(network, answers_close=False)

        try:
            async with create(URL, open_stream=network.open_stream, close_timeout=3) as ws:
                await ws.wait_open()
                if how == "raise":
                    raise Oops
        except Oops:
            assert how == "raise"
        assert trio.current_time() <= 3.2
        assert network.live == 0


@pytest.mark.parametrize("how", ["end", "raise", "cancel"])
async def test_with_ten_thousand_unread_messages(create: Any, how: str, autojump_clock: MockClock) -> None:
    ws: Any = None
    network = MemoryNetwork(buffer_size=2**22)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            try:
                async with create(URL, open_stream=network.open_stream, inbox=Buffer(100)) as ws:
                    peer = await accept(network, ws)
                    for number in range(10_000):
                        await peer.send(str(number))
                    nursery.start_soon(peer.serve_echo)
                    if how == "raise":
                        raise Oops
                    if how == "cancel":
                        scope.cancel()
                        await trio.sleep(1)
            except Oops:
                assert how == "raise"
        assert trio.current_time() <= 5.2
        assert network.live == 0
        if how != "cancel":
            assert (await ws.wait_closed()).clean


@pytest.mark.parametrize("how", ["end", "raise", "cancel"])
async def test_with_a_blocked_sender(create: Any, how: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=64)
    begun = 0.0
    left = False
    with trio.CancelScope() as scope:
        try:
            async with create(URL, open_stream=network.open_stream, outbox=Buffer(2), close_timeout=2) as ws:
                await accept(network, ws)
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def flood() -> None:
                        while True:
                            await ws.send("x" * 100)

                    await wait_all_tasks_blocked()
                    begun = trio.current_time()
                    if how == "cancel":
                        scope.cancel()
                    nursery.cancel_scope.cancel()
                if how == "raise":
                    raise Oops
                await ws.aclose()
                left = True
        except Oops:
            assert how == "raise"
    assert left == (how == "end")
    assert trio.current_time() - begun <= (0 if how == "cancel" else 2.2)
    assert network.live == 0


async def test_with_a_peer_that_keeps_tcp_open_after_an_error(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with opened(network, close_timeout=2) as (ws, peer):
        await peer.send_raw(b"\xff\xff\xff\xff")  # nonsense, and then nothing
        end = await ws.wait_closed()
        assert end.code == 1002
        assert trio.current_time() <= 2.2
        await ws.aclose()
        with pytest.raises(Exception, match="1002"):
            await ws.receive()


async def test_with_a_peer_that_closes_and_keeps_tcp_open(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with opened(network, close_timeout=2) as (ws, peer):
        await peer.send_close()
        end = await ws.wait_closed()
        assert end.clean
    assert trio.current_time() <= 2.2
    assert network.live == 0


@pytest.mark.parametrize("phase", ["connecting", "open", "closing", "heartbeat"])
async def test_cancelled_it_leaves_at_once(create: Any, phase: str, autojump_clock: MockClock) -> None:
    tasks = await count_tasks()
    network = MemoryNetwork()
    with trio.move_on_after(10) as scope:
        async with create(URL, open_stream=network.open_stream, connect_timeout=None, close_timeout=100) as ws:
            await ws.send("x")
            if phase != "connecting":
                peer = await accept(network, ws)
                assert await peer.receive() == "x"
            if phase == "heartbeat":
                make_heartbeat_ws(ws, wait=100)
            if phase != "closing":
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(10)
    assert network.live == 0
    assert ws.state.value is ReadyState.CLOSED
    assert await count_tasks() == tasks


async def test_an_error_that_leaves_while_we_are_cancelled_is_not_swallowed(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(Oops), trio.CancelScope() as scope:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await accept(network, ws)
            scope.cancel()
            raise Oops


async def test_a_finally_of_the_body_can_still_say_goodbye(create: Any, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def hear() -> None:
            peer = await network.accept()
            await peer.accept()
            assert await peer.receive() == "goodbye"
            assert await peer.receive() == "really"
            with pytest.raises((PeerClosed, trio.EndOfChannel)):
                await peer.receive()

        with trio.move_on_after(1):
            async with create(URL, open_stream=network.open_stream) as ws:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(1, shield=True):
                        await ws.send("goodbye")
                        await ws.flush()
                        await ws.send("really")
                        await ws.aclose()


async def test_a_sibling_s_crash_ends_the_block_and_its_error_keeps_its_shape(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def crash() -> None:
        await trio.sleep(1)
        raise Oops

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            async with create_ws(URL, open_stream=network.open_stream) as ws:
                await accept(network, ws)
                await ws.receive()
    assert [type(each) for each in caught.value.exceptions] == [Oops]
    assert trio.current_time() == pytest.approx(1)
    assert network.live == 0


async def test_a_group_of_a_nursery_in_the_body_keeps_its_shape(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def crash() -> None:
        raise Oops

    with pytest.raises(ExceptionGroup) as caught:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await accept(network, ws)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash)
                await ws.receive()
    assert [type(each) for each in caught.value.exceptions] == [Oops]


async def test_make_ws_ends_with_its_nursery_s_cancellation(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        async with ws.events() as events:
            peer = await accept(network, ws)
            nursery.cancel_scope.cancel()
    assert network.live == 0
    assert ws.state.value is ReadyState.CLOSED
    assert (await ws.wait_closed()).code == 1006
    with pytest.raises(trio.EndOfChannel):
        await peer.receive_frame()
    with pytest.raises(trio.ClosedResourceError):
        await ws.send("x")
    with pytest.raises(trio.ClosedResourceError):
        await ws.receive()
    with pytest.raises((trio.EndOfChannel, trio.ClosedResourceError)):
        while True:
            await events.receive()


async def test_make_ws_in_a_nursery_that_is_cancelled_before_it_ran(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        nursery.cancel_scope.cancel()
    assert ws.state.value is ReadyState.CLOSED
    assert network.live == 0


async def test_make_ws_when_the_nursery_s_body_raises(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            ws = make_ws(nursery, URL, open_stream=network.open_stream)
            await accept(network, ws)
            raise Oops
    assert [type(each) for each in caught.value.exceptions] == [Oops]
    assert network.live == 0
    assert ws.state.value is ReadyState.CLOSED


async def test_the_task_of_make_ws_ends_with_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    async with trio.open_nursery() as nursery:
        ws = make_ws(nursery, URL, open_stream=network.open_stream)
        assert len(nursery.child_tasks) == 1
        await ws.wait_closed()
    # A failure is told to those who call, and does not bring down the nursery.


async def test_cancelling_a_close_at_the_end_of_the_block_closes(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with trio.move_on_after(1) as scope:
        async with create_ws(URL, open_stream=network.open_stream, close_timeout=50) as ws:
            await accept(network, ws)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert network.live == 0


async def test_a_user_s_stream_that_is_slow_to_close_holds_us_only_shortly(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    class Slow(trio.abc.Stream):
        def __init__(self, inner: trio.abc.Stream) -> None:
            self.inner = inner

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.inner.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return bytes(await self.inner.receive_some(max_bytes))

        async def aclose(self) -> None:
            try:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
            finally:
                await self.inner.aclose()

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        return Slow(await network.open_stream(host, port))

    with trio.move_on_after(1):
        async with create_ws(URL, open_stream=open_stream) as ws:
            await accept(network, ws)
            await trio.sleep_forever()
    assert trio.current_time() <= 1 + 0.5 + 0.1
    assert network.live == 0


def test_a_real_keyboard_interrupt_comes_out_alone() -> None:
    network = MemoryNetwork()

    async def main() -> None:
        async with create_ws(URL, open_stream=network.open_stream) as ws:
            await accept(network, ws)
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert network.live == 0


@pytest.mark.parametrize("where", ["url", "setup", "message", "reply"])
async def test_an_interrupt_in_a_function_of_the_user_s_comes_out_alone(where: str, autojump_clock: MockClock) -> None:
    """Such as one that strikes while our task, and not the user's, is running."""
    network = MemoryNetwork()

    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    async def interrupt_later(*_: object) -> Any:
        await trio.sleep(1)
        raise KeyboardInterrupt

    options: dict[str, Any] = {"url": URL, "open_stream": network.open_stream}
    if where in ("url", "setup"):
        options[where] = interrupt_later
    with pytest.raises(KeyboardInterrupt):
        async with create_ws(**options) as ws:
            if where in ("message", "reply"):
                make_heartbeat_ws(ws, **cast("Any", {where: interrupt}))
            if where != "url":
                peer = await network.accept()
                await peer.accept()
                await peer.send("x")
            await trio.sleep_forever()
    assert network.live == 0
    assert ws.state.value is ReadyState.CLOSED
