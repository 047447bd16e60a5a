"""Over real sockets: what the kernel does that no memory does."""

import contextlib
import gc
import socket
import struct
import warnings

import pytest
import trio

from tests.live.servers import echo, greet, listening
from trio_wsprim import ConnectionClosed, ConnectionFailed, create_reconnecting_ws, create_ws
from trio_wsprim.testing import Opcode, encode_frame, peer_over


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def set_reset(stream: trio.SocketStream) -> None:
    """Make the coming close an RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_messages_of_all_sizes_arrive() -> None:
    async with listening(echo()) as port, create_ws(f"ws://127.0.0.1:{port}/") as ws:
        sizes = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
        for size in sizes:
            await ws.send(b"x" * size)
        assert [len(await ws.receive()) for _ in sizes] == sizes


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_address_is_in_brackets_in_the_host_header() -> None:
    hosts: list[str | None] = []

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        hosts.append((await peer.read_request()).header("host"))
        await greet(peer)

    async with listening(serve, host="::1") as port, create_ws(f"ws://[::1]:{port}/") as ws:
        assert await ws.receive() == "hello"
    assert hosts == [f"[::1]:{port}"]


async def test_nobody_there_is_told_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with trio.fail_after(10), pytest.raises(ConnectionFailed) as caught:
        async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
            await ws.wait_open()
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_name_that_does_not_resolve_is_told() -> None:
    with trio.fail_after(10), pytest.raises(ConnectionFailed):
        async with create_ws("ws://does-not-exist.invalid/") as ws:
            await ws.wait_open()


async def test_silence_after_tcp_is_a_timeout() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with listening(silent) as port:
        with pytest.raises(ConnectionFailed) as caught:
            async with create_ws(f"ws://127.0.0.1:{port}/", connect_timeout=0.2) as ws:
                await ws.wait_open()
    assert isinstance(caught.value.__cause__, trio.TooSlowError)


async def test_a_reset_within_the_handshake_is_told_at_once() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)  # what is unread alone makes the kernel reset
        set_reset(stream)

    async with listening(serve) as port:
        with pytest.raises(ConnectionFailed):
            async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                await ws.wait_open()


async def test_a_reset_is_a_lost_connection() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        await peer.receive()
        set_reset(stream)

    async with listening(serve) as port:
        with pytest.raises(ConnectionClosed) as caught:
            async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                await ws.send("go")
                await ws.receive()
    assert caught.value.code == 1006


async def test_a_reset_while_much_is_on_its_way_leaves_what_did_not_go_out() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        await peer.send("go")
        await trio.sleep(0.05)  # reading nothing, until kernels are full
        set_reset(stream)

    async with listening(serve) as port:
        with pytest.raises(ConnectionClosed):
            async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                assert await ws.receive() == "go"
                while True:
                    await ws.send(b"x" * 100_000)
        left = [each.message for each in ws.undelivered]
        assert left == [b"x" * 100_000] * len(left)
        assert len(left) + ws.statistics().messages_sent > 1


async def test_what_a_server_says_before_it_hangs_up_on_a_writer_is_heard() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        await peer.receive()
        await peer.send_raw(encode_frame(Opcode.TEXT, b"goodbye") + encode_frame(Opcode.CLOSE, b"\x0f\xa0no more"))
        while True:
            await peer.receive_frame()

    async with listening(serve) as port:
        with pytest.raises(ConnectionClosed) as caught:
            async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                await ws.send("go")
                assert await ws.receive() == "goodbye"
                await ws.receive()
    assert (caught.value.code, caught.value.reason, caught.value.clean) == (4000, "no more", True)


async def test_our_close_reaches_a_server_that_is_still_sending() -> None:
    codes: list[int | None] = []

    async def serve(stream: trio.SocketStream) -> None:
        peer = peer_over(stream)
        await peer.accept()
        for _ in range(200):
            await peer.send(b"x" * 10_000)
        frame = await peer.receive_frame()
        codes.append(int.from_bytes(frame.payload[:2]))
        await peer.send_close(1000)

    async with listening(serve) as port:
        async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
            await ws.receive()
            await ws.aclose(4001)
            assert (await ws.wait_closed()).clean
        assert codes == [4001]


async def test_a_reconnecting_socket_comes_back_after_a_reset() -> None:
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        peer = peer_over(stream)
        await peer.accept()
        await peer.send(str(connections))
        if connections < 3:
            await peer.receive()
            set_reset(stream)
        else:
            await peer.receive()

    async with (
        listening(serve) as port,
        create_reconnecting_ws(f"ws://127.0.0.1:{port}/", delay=0.01) as ws,
    ):
        for number in (1, 2, 3):
            assert await ws.receive() == str(number)
            if number < 3:
                await ws.send("die")


async def test_no_socket_is_left_for_the_garbage_collector() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        async with listening(echo()) as port:
            for _ in range(3):
                async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                    await ws.send("x")
                    await ws.receive()
                with trio.move_on_after(0.05):
                    async with create_ws(f"ws://127.0.0.1:{port}/") as ws:
                        await ws.wait_open()
                        await trio.sleep_forever()
        gc.collect()
