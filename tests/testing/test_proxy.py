"""The fault proxy is TCP over loopback with faults on command, and leaves nothing behind.

Real sockets, hence real time: everything is bounded, and nothing depends on how fast it goes.
"""

import gc
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf, nan

import pytest
import trio

from trio_wsprim.testing import FaultProxy

# Nothing here takes a tenth of it, unless it hangs.
PATIENCE = 20.0
# How long nothing must happen, where nothing may. A slow machine makes such a test pass, never fail.
A_WHILE = 0.05


@dataclass(frozen=True)
class Rig:
    """A listening target, and a proxy before it."""

    proxy: FaultProxy
    arrived: trio.MemoryReceiveChannel[trio.SocketStream]

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.proxy.host, self.proxy.port)

    async def connect(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """Give both ends of a new connection: the client's and the target's."""
        before = self.proxy.statistics().connections
        client, target = await self.dial(), await self.arrived.receive()
        # The target may accept before the proxy's own dial has returned.
        await wait_until(lambda: self.proxy.statistics().connections > before)
        return client, target


@asynccontextmanager
async def rig(*, seed: int = 1) -> AsyncGenerator[Rig]:
    arrive, arrived = trio.open_memory_channel[trio.SocketStream](inf)

    async def serve(stream: trio.SocketStream) -> None:
        arrive.send_nowait(stream)
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(partial(trio.serve_listeners, serve, [listener], handler_nursery=nursery))
            async with FaultProxy("127.0.0.1", listener.socket.getsockname()[1], seed=seed) as proxy:
                yield Rig(proxy, arrived)
            nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        assert chunk, "the stream ended early"
        data += chunk
    return bytes(data)


async def wait_until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110 - the kernel has no event of ours to wait for
        await trio.sleep(0.001)


async def stays_silent(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(A_WHILE) as scope:
        await stream.receive_some()
    return scope.cancelled_caught


async def push(stream: trio.SocketStream) -> int:
    """Write until nothing has gone out for a while; say how much that was."""
    sent = 0
    is_stuck = False
    while not is_stuck:
        with trio.move_on_after(A_WHILE) as scope:
            sent += await stream.socket.send(bytes(65536))
        is_stuck = scope.cancelled_caught
    return sent


# --- carrying ---


async def test_bytes_pass_in_both_directions_and_are_counted() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            await client.send_all(b"question")
            assert await receive_exactly(target, 8) == b"question"
            await target.send_all(b"answer")
            assert await receive_exactly(client, 6) == b"answer"

        seen = net.proxy.statistics()
    assert (seen.connections, seen.refused, seen.live) == (1, 0, 1)
    assert (seen.bytes_to_target, seen.bytes_to_clients) == (8, 6)


async def test_an_eof_passes_behind_the_bytes_and_the_other_direction_stays_open() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            await client.send_all(b"last")
            await client.send_eof()
            assert await receive_exactly(target, 4) == b"last"
            assert await target.receive_some() == b""
            await target.send_all(b"still here")
            assert await receive_exactly(client, 10) == b"still here"
            await target.send_eof()
            assert await client.receive_some() == b""
        await wait_until(lambda: net.proxy.statistics().live == 0)


@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_reset_by_one_end_reaches_the_other(who: str) -> None:
    async with rig() as net:
        client, target = await net.connect()
        leaving, left = (client, target) if who == "client" else (target, client)
        async with client, target:
            await leaving.send_all(b"x")
            await receive_exactly(left, 1)
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            leaving.socket.close()
            with pytest.raises(trio.BrokenResourceError):
                await left.receive_some()
        await wait_until(lambda: net.proxy.statistics().live == 0)


async def test_writing_to_an_end_that_has_gone_breaks_the_other() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client:
            await target.aclose()
            assert await client.receive_some() == b""
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await client.send_all(b"anybody there?")
        await wait_until(lambda: net.proxy.statistics().live == 0)


async def test_an_end_that_does_not_read_pushes_back_through_a_bounded_proxy() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            sent = await push(client)
            assert await stays_silent(client)
            assert await receive_exactly(target, sent) == bytes(sent)


async def test_a_target_that_is_not_there_makes_the_dial_fail() -> None:
    with trio.fail_after(PATIENCE), socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # ours, and nobody listens
        async with FaultProxy("127.0.0.1", nobody.getsockname()[1]) as proxy:
            client = await trio.open_tcp_stream(proxy.host, proxy.port)
            async with client:
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
            assert proxy.statistics().connections == 0


# --- killing ---


async def test_reset_breaks_every_connection_at_both_ends_and_new_ones_work() -> None:
    async with rig() as net:
        pairs = [await net.connect() for _ in range(3)]
        net.proxy.reset()
        net.proxy.reset()
        for end in (end for pair in pairs for end in pair):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
            await end.aclose()
        client, target = await net.connect()
        async with client, target:
            await client.send_all(b"again")
            assert await receive_exactly(target, 5) == b"again"
        assert net.proxy.statistics().connections == 4


async def test_fin_gives_both_ends_what_was_passed_on_and_then_eof() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            await client.send_all(b"arrived")
            await wait_until(lambda: net.proxy.statistics().bytes_to_target == 7)
            net.proxy.fin()
            net.proxy.fin()
            assert await target.receive_some() == b"arrived"
            assert await target.receive_some() == b""
            assert await client.receive_some() == b""
            # What is said to a proxy that has hung up is discarded, but does no harm.
            await client.send_all(b"too late")
        await wait_until(lambda: net.proxy.statistics().live == 0)
        assert net.proxy.statistics().bytes_to_target == 7


async def test_fin_does_not_wait_for_ever_for_ends_that_do_not_hang_up() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            net.proxy.fin()
            await wait_until(lambda: net.proxy.statistics().live == 0)


async def test_reset_cuts_the_farewell_of_fin_short_and_fin_after_reset_does_nothing() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            net.proxy.fin()
            assert await client.receive_some() == b""
            net.proxy.reset()
            net.proxy.fin()
            await wait_until(lambda: net.proxy.statistics().live == 0)
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await client.send_all(b"x")


async def test_an_end_that_resets_during_the_farewell_ends_its_half_of_it() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with target:
            net.proxy.fin()
            assert await client.receive_some() == b""
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()
            await target.aclose()
            await wait_until(lambda: net.proxy.statistics().live == 0)


async def test_refuse_breaks_new_connections_only_until_accept() -> None:
    async with rig() as net:
        old, old_target = await net.connect()
        net.proxy.refuse()
        async with await net.dial() as refused:
            with pytest.raises(trio.BrokenResourceError):
                await refused.receive_some()
        async with old, old_target:
            await old.send_all(b"x")
            assert await receive_exactly(old_target, 1) == b"x"
        net.proxy.accept()
        client, target = await net.connect()
        async with client, target:
            await client.send_all(b"y")
            assert await receive_exactly(target, 1) == b"y"
        assert (net.proxy.statistics().connections, net.proxy.statistics().refused) == (2, 1)


# --- freezing ---


async def test_a_frozen_network_passes_nothing_until_it_thaws() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            net.proxy.freeze()
            net.proxy.freeze()
            await client.send_all(b"held")
            await client.send_eof()
            assert await stays_silent(target)
            net.proxy.thaw()
            net.proxy.thaw()
            assert await receive_exactly(target, 4) == b"held"
            assert await target.receive_some() == b""


async def test_a_connection_made_to_a_frozen_network_freezes_too() -> None:
    async with rig() as net:
        net.proxy.freeze()
        client, target = await net.connect()
        async with client, target:
            await target.send_all(b"hello")
            assert await stays_silent(client)
            net.proxy.thaw()
            assert await receive_exactly(client, 5) == b"hello"


async def test_not_even_a_reset_by_an_end_passes_a_frozen_network() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with target:
            net.proxy.freeze()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()
            assert await stays_silent(target)
            net.proxy.thaw()
            with pytest.raises(trio.BrokenResourceError):
                await target.receive_some()


async def test_a_network_that_thaws_for_a_moment_only_stays_frozen() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            net.proxy.freeze()
            await client.send_all(b"held")
            assert await stays_silent(target)
            net.proxy.thaw()
            net.proxy.freeze()
            assert await stays_silent(target)


async def test_a_write_that_waits_for_room_does_not_slip_out_of_a_frozen_network() -> None:
    async with rig() as net:
        client, target = await net.connect()
        async with client, target:
            sent = await push(client)
            net.proxy.freeze()
            passed = net.proxy.statistics().bytes_to_target
            assert await receive_exactly(target, passed) == bytes(passed)
            assert await stays_silent(target)
            net.proxy.thaw()
            assert await receive_exactly(target, sent - passed) == bytes(sent - passed)


async def test_a_frozen_connection_can_be_killed() -> None:
    async with rig() as net:
        pairs = [await net.connect() for _ in range(2)]
        net.proxy.freeze()
        await pairs[0][0].send_all(b"lost")
        await trio.sleep(A_WHILE)
        net.proxy.reset()
        for end in (end for pair in pairs for end in pair):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
            await end.aclose()
        assert net.proxy.statistics().bytes_to_target == 0


# --- slowing down ---


async def watch_slices(proxy: FaultProxy, size: int) -> list[int]:
    """Tell by how much the counter grows each time: a task sends at most once between two of our looks."""
    slices = []
    passed = 0
    while passed < size:
        await trio.lowlevel.checkpoint()
        before, passed = passed, proxy.statistics().bytes_to_target
        if passed > before:
            slices.append(passed - before)
    return slices


async def test_latency_and_jitter_delay_bytes_and_keep_their_order() -> None:
    async with rig() as net:
        client, target = await net.connect()
        net.proxy.latency = 0.05
        net.proxy.jitter = 0.05
        assert (net.proxy.latency, net.proxy.jitter) == (0.05, 0.05)
        async with client, target:
            start = trio.current_time()
            for number in range(20):
                await client.send_all(bytes([number]))
            assert await receive_exactly(target, 20) == bytes(range(20))
            assert trio.current_time() - start >= 0.05


async def test_slices_are_small_and_lose_nothing() -> None:
    async with rig() as net:
        client, target = await net.connect()
        net.proxy.slice_bytes = 3
        assert net.proxy.slice_bytes == 3
        async with client, target:
            data = bytes(range(200))
            await client.send_all(data)
            slices = await watch_slices(net.proxy, len(data))
            assert sum(slices) == len(data)
            assert set(slices) == {1, 2, 3}
            assert await receive_exactly(target, len(data)) == data


async def test_bandwidth_is_a_limit_per_second() -> None:
    async with rig() as net:
        client, target = await net.connect()
        net.proxy.bandwidth = 10_000
        assert net.proxy.bandwidth == 10_000
        async with client, target:
            start = trio.current_time()
            await client.send_all(bytes(1000))
            assert len(await target.receive_some()) <= 1000
            await wait_until(lambda: net.proxy.statistics().bytes_to_target == 1000)
            # The first portion of 20 ms goes out at once.
            assert trio.current_time() - start >= 0.07
            net.proxy.bandwidth = None
            net.proxy.slice_bytes = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency", -1),
        ("latency", nan),
        ("jitter", -0.1),
        ("jitter", inf),
        ("slice_bytes", 0),
        ("bandwidth", 0),
        ("bandwidth", nan),
    ],
)
async def test_numbers_out_of_range_are_refused_with_a_sentence(name: str, value: float) -> None:
    proxy = FaultProxy("127.0.0.1", 1)
    before = getattr(proxy, name)

    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        setattr(proxy, name, value)

    assert getattr(proxy, name) == before


# --- its block ---


async def test_nothing_stays_behind_when_the_block_is_left_in_the_middle_of_everything() -> None:
    # A socket that is not closed warns when it is collected, and warnings are errors here.
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    async with rig() as net:
        ends = [end for _ in range(3) for end in await net.connect()]
        net.proxy.fin()
        ends += [end for _ in range(3) for end in await net.connect()]
        net.proxy.freeze()
        await ends[-2].send_all(b"held")
    for end in ends:
        await end.aclose()
    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before


async def test_the_block_s_own_error_comes_out_as_it_is() -> None:
    with trio.fail_after(PATIENCE):
        with pytest.raises(KeyError, match="mine"):
            async with FaultProxy("127.0.0.1", 1):
                raise KeyError("mine")


async def test_the_block_can_be_cancelled() -> None:
    with trio.fail_after(PATIENCE):
        with trio.CancelScope() as scope:
            async with FaultProxy("127.0.0.1", 1) as proxy, await trio.open_tcp_stream(proxy.host, proxy.port):
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert proxy.port == 0


async def test_a_proxy_runs_once_at_a_time() -> None:
    with trio.fail_after(PATIENCE):
        proxy = FaultProxy("127.0.0.1", 1)
        async with proxy:
            with pytest.raises(RuntimeError, match="runs already"):
                await proxy.__aenter__()
        async with proxy:
            assert proxy.port != 0


async def test_entering_can_be_cancelled_and_then_done() -> None:
    proxy = FaultProxy("127.0.0.1", 1)

    with trio.CancelScope() as scope:
        scope.cancel()
        async with proxy:
            raise AssertionError("it was cancelled")

    assert scope.cancelled_caught
    with trio.fail_after(PATIENCE):
        async with proxy:
            assert proxy.port != 0


async def test_commands_before_anything_is_connected_do_nothing() -> None:
    async with rig() as net:
        net.proxy.reset()
        net.proxy.fin()
        net.proxy.thaw()
        net.proxy.accept()
        client, target = await net.connect()
        await client.aclose()
        await target.aclose()


@pytest.mark.parametrize("command", [FaultProxy.reset, FaultProxy.fin])
async def test_a_kill_while_the_target_is_being_dialled_ends_the_client(
    command: Callable[[FaultProxy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dial: Callable[[str, int], Awaitable[trio.SocketStream]] = trio.open_tcp_stream
    async with rig() as net:

        async def dial_for_ever(host: str, port: int) -> trio.SocketStream:
            await trio.sleep_forever()
            raise AssertionError("unreachable")

        monkeypatch.setattr(trio, "open_tcp_stream", dial_for_ever)
        client = await dial(net.proxy.host, net.proxy.port)
        await wait_until(lambda: net.proxy.statistics().live == 1)
        command(net.proxy)
        async with client:
            if command is FaultProxy.fin:
                assert await client.receive_some() == b""
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
