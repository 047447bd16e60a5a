"""What is particular to the transport over trio-websocket; what all promise is in `tests/contract`."""

import logging
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wsprim import ConnectionClosed, ConnectionFailed
from trio_wsprim.abc import Link, Pong, Upgrade
from trio_wsprim.testing import MemoryNetwork, Opcode, Peer, encode_frame
from trio_wsprim.transports import TrioWebsocketTransport

UPGRADE = Upgrade(host="example.test", resource="/", subprotocols=("chat",), max_message_bytes=1000)


async def connect(nursery: trio.Nursery, network: MemoryNetwork, upgrade: Upgrade = UPGRADE) -> Link:
    stream = await network.open_stream("example.test", 80)
    return await TrioWebsocketTransport().connect(nursery, stream, upgrade)


async def fail(network: MemoryNetwork, upgrade: Upgrade = UPGRADE) -> ConnectionFailed:
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectionFailed) as caught:
                await connect(nursery, network, upgrade)
    assert network.live == 0
    return caught.value


async def test_a_request_that_http_cannot_say_fails_at_once(autojump_clock: MockClock) -> None:
    error = await fail(MemoryNetwork(), Upgrade(host="a" * 63 + ":8080", resource="/"))
    assert error.permanent
    assert isinstance(error.__cause__, UnicodeError)
    assert trio.current_time() == 0


@pytest.mark.parametrize("header", ["Upgrade: websocket", "Connection: Upgrade"])
async def test_a_101_that_lacks_what_makes_it_one_fails_for_good(header: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await network.accept()
            await peer.read_request()
            other = {"Upgrade: websocket": "Connection: Upgrade", "Connection: Upgrade": "Upgrade: websocket"}[header]
            await peer.send_raw(f"HTTP/1.1 101 x\r\n{other}\r\n\r\n".encode())

        nursery.start_soon(serve)
        error = await fail(network)
    assert error.permanent
    fault = {"Upgrade": "its Upgrade is not websocket", "Connection": "its Connection has no Upgrade"}
    assert str(error) == f"the server's 101 is no WebSocket handshake: {fault[header.partition(':')[0]]}"


async def test_a_wrong_accept_key_fails_for_good(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await (await network.accept()).accept(accept_key="c2VjcmV0")

        nursery.start_soon(serve)
        error = await fail(network)
    assert error.permanent
    assert str(error) == "the server's 101 is no WebSocket handshake: Bad accept token"


async def test_what_we_did_not_ask_for_is_refused_in_words_of_our_own(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await (await network.accept()).accept("s3cret")

        nursery.start_soon(serve)
        error = await fail(network)
    assert error.permanent
    assert "subprotocol" in str(error)
    assert "s3cret" not in str(error)
    assert error.__cause__ is None


async def test_a_peer_that_does_not_take_the_request_fails_when_it_is_gone(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=10)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await network.accept()
            await trio.sleep(0.5)
            peer.reset()

        nursery.start_soon(serve)
        error = await fail(network)
    assert str(error) == "the connection broke during the handshake"
    assert not error.permanent
    assert trio.current_time() == 0.5


async def test_a_cancelled_handshake_leaves_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    for steps in range(12):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:

                    async def serve() -> None:
                        peer = await network.accept()
                        with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                            await peer.accept()
                        await trio.sleep_forever()

                    async def cancel(steps: int = steps, scope: trio.CancelScope = scope) -> None:
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    inner.start_soon(serve)
                    inner.start_soon(cancel)
                    link = await connect(nursery, network)
                    await trio.sleep_forever()
            if network.live:
                await link.abort()  # it came to be before
            nursery.cancel_scope.cancel()
        assert network.live == 0


async def test_nothing_of_ours_reaches_the_logs_of_those_underneath(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    # Their debug log is theirs to switch on, but above it nothing must be said of a peer's faults.
    caplog.set_level(logging.INFO)
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = await network.accept()
            await peer.accept()
            await peer.send_frame(Opcode.TEXT, b"\xff")

        nursery.start_soon(serve)
        link = await connect(nursery, network)
        with pytest.raises(ConnectionClosed):
            await link.receive()
        await link.abort()
        nursery.cancel_scope.cancel()
    assert caplog.records == []


frames = st.builds(
    encode_frame,
    st.integers(0, 15),
    st.binary(max_size=130),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 0, 4]),
    masked=st.sampled_from([False, False, False, True]),
)


@given(data=st.lists(frames | st.binary(max_size=20), max_size=12).map(b"".join), cut=st.integers(1, 50))
def test_whatever_a_peer_says_ends_in_messages_and_one_error(data: bytes, cut: int) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                peer = await network.accept()
                await peer.accept()
                try:
                    for at in range(0, len(data), cut):
                        await peer.send_raw(data[at : at + cut])
                    await wait_all_tasks_blocked()
                except trio.BrokenResourceError:
                    pass
                await peer.half_close()
                await read_all(peer)

            nursery.start_soon(serve)
            link = await connect(nursery, network)
            with pytest.raises(ConnectionClosed):
                while True:
                    assert all(isinstance(each, str | bytes | Pong) for each in await link.receive())
            await link.aclose(1000, "")
            await link.abort()
            nursery.cancel_scope.cancel()
        assert network.live == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def read_all(peer: Peer) -> None:
    """Read what a client says, which must be well-formed to the end."""
    try:
        while True:
            frame = await peer.receive_frame()
            assert frame.masked
            assert frame.opcode in {Opcode.PONG, Opcode.CLOSE}
    except trio.EndOfChannel:
        assert peer.unparsed == b""
