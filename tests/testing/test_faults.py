"""What a test can have happen to a network in memory: answers, black holes, delays, narrow and broken ways."""

import math
import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

# Not in this module's names, lest the whole of it is run once more on each transport: it names them itself.
import trio_wsprim
from trio_wsprim import Backoff, ConnectionClosed, ConnectionFailed, ConnectionRejected
from trio_wsprim.abc import Transport
from trio_wsprim.testing import MemoryNetwork, MemoryTransport, Opcode, Peer, PeerClosed, memory_stream_pair, peer_over
from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport

URL = "ws://example.test/"


@pytest.fixture(params=[TrioWebsocketTransport, WebsocketsTransport, MemoryTransport])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made


async def echo(peer: Peer) -> None:
    await peer.accept()
    while True:
        await peer.send(await peer.receive())


# --- dials ---


async def test_dials_can_be_rejected_without_anybody_who_accepts(
    transport: Transport, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    network.reject(429, [("X-Limit", "9")], b"too many", reason="Slow Down", delay=3, count=2)

    for attempt in (1, 2):
        with pytest.raises(ConnectionRejected) as caught:
            async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
                await ws.wait_open()
        assert (caught.value.status, caught.value.body) == (429, b"too many")
        assert ("x-limit", "9") in caught.value.headers
        assert trio.current_time() == 3 * attempt
    assert network.live == 0
    network.log.select(connection=1).assert_lines(
        "client DIAL example.test:80",
        "client GET /",
        "server 429 Slow Down",
        "server BODY of 8 bytes",
        "...",
    )


async def test_a_client_that_does_not_wait_for_its_rejection_leaves_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.reject(503, delay=60)
    await wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living

    with pytest.raises(ConnectionFailed):
        async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, connect_timeout=5) as ws:
            await ws.wait_open()
    await trio.sleep(60)

    assert trio.lowlevel.current_statistics().tasks_living == before


def test_a_rejection_after_no_time_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^delay must be a finite number of seconds"):
        MemoryNetwork().reject(503, delay=math.nan)


async def test_dials_can_be_swallowed(transport: Transport, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.swallow()

    with pytest.raises(ConnectionFailed):
        async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
            await ws.wait_open()

    assert trio.current_time() == 10
    network.log.assert_lines("client DIAL example.test:80", "client GET /", "client FIN")


async def test_the_log_tells_how_dials_fail(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.refuse()
    network.stall()

    with pytest.raises(ConnectionRefusedError):
        await network.open_stream("one.test", 1)
    with trio.move_on_after(5):
        await network.open_stream("two.test", 2)

    network.log.assert_lines(
        "#1 client DIAL one.test:1", "#1 server REFUSED", "#2 client DIAL two.test:2", "#2 client GIVEN UP"
    )
    assert repr(network) == "<MemoryNetwork with 0 live connections after 2 dials>"


# --- scripts ---


async def test_scripts_are_played_with_each_connection_and_close_as_servers_do(
    transport: Transport, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()

    async def greet(peer: Peer) -> None:
        await peer.accept()
        await peer.send("hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.serve, greet)
        for _ in range(2):
            async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
                assert [message async for message in ws] == ["hello"]
                assert await ws.wait_closed() == trio_wsprim.CloseEvent(1000, "", clean=True)
        nursery.cancel_scope.cancel()
    assert network.live == 0


async def test_that_a_connection_ends_is_no_fault_of_a_script(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def echo_in_a_nursery(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, peer)

    for script in (echo, echo_in_a_nursery):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve, script)
            async with trio_wsprim.create_ws(URL, open_stream=network.open_stream) as ws:
                await ws.send("x")
                assert await ws.receive() == "x"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_other_errors_of_scripts_come_out(is_grouped: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def fail(peer: Peer) -> None:
        if is_grouped:
            raise ExceptionGroup("of a nursery", [trio.EndOfChannel(), RuntimeError("mine")])
        raise RuntimeError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve, fail)
            await network.open_stream("example.test", 80)
    assert caught.value.split(RuntimeError)[0] is not None


async def test_a_script_that_is_cancelled_resets_its_connection(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.serve, echo)
        stream = await network.open_stream("example.test", 80)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


# --- in place of TCP ---


@pytest.mark.parametrize("in_bytes", [False, True])
async def test_every_url_leads_to_the_network_that_replaces_tcp(in_bytes: bool, autojump_clock: MockClock) -> None:
    network, other = MemoryNetwork(), MemoryNetwork()
    with network.replacing_tcp(in_bytes=in_bytes):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve, echo)
            nursery.start_soon(other.serve, echo)
            for url in ("ws://one.test:81/", "wss://two.test/?token=x"):
                async with trio_wsprim.create_ws(url) as ws:
                    await ws.send("hello")
                    assert await ws.receive() == "hello"
            async with trio_wsprim.create_ws(URL, open_stream=other.open_stream) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            network.refuse()
            with pytest.raises(ConnectionFailed, match="connection refused"):
                async with trio_wsprim.create_ws("wss://two.test/") as ws:
                    await ws.wait_open()
            nursery.cancel_scope.cancel()

    assert [(dial.host, dial.port) for dial in network.dials] == [
        ("one.test", 81),
        ("two.test", 443),
        ("two.test", 443),
    ]
    assert len(other.dials) == 1
    request = network.log.select(kind="request")[0].request
    assert request is not None
    assert (request.header("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ==") is not in_bytes


async def test_tcp_is_back_after_the_block(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with network.replacing_tcp():
        pass
    with pytest.raises(ConnectionFailed):
        async with trio_wsprim.create_ws("ws://localhost:1/") as ws:
            await ws.wait_open()
    assert network.dials == []


# --- ways ---


async def test_latency_is_of_one_direction(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.to_server.latency = 1
    network.to_client.latency = 2.5
    ours = await network.open_stream("example.test", 80)
    theirs = (await network.accept()).stream

    await ours.send_all(b"ping")
    assert (await theirs.receive_some(), trio.current_time()) == (b"ping", 1)
    await theirs.send_all(b"pong")
    await theirs.aclose()
    assert (await ours.receive_some(), trio.current_time()) == (b"pong", 3.5)
    assert await ours.receive_some() == b""
    assert repr(network.to_client) == "<Way latency=2.5 jitter=0.0 bandwidth=None>"


async def test_what_changes_holds_for_what_comes_and_order_is_kept(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.to_client.latency = 5
    ours = await network.open_stream("example.test", 80)
    theirs = (await network.accept()).stream

    await theirs.send_all(b"slow")
    network.to_client.latency = 0
    await theirs.send_all(b" fast")

    assert (await ours.receive_some(), trio.current_time()) == (b"slow fast", 5)


async def test_jitter_is_drawn_from_the_seed(autojump_clock: MockClock) -> None:
    arrivals: list[list[float]] = []
    for seed in (1, 1, 2):
        network = MemoryNetwork(seed=seed)
        network.to_server.jitter = 1
        ours = await network.open_stream("example.test", 80)
        theirs = (await network.accept()).stream
        start = trio.current_time()
        found: list[float] = []
        for _ in range(3):
            await ours.send_all(b"x")
            await theirs.receive_some()
            found.append(round(trio.current_time() - start, 6))
        arrivals.append(found)
    assert arrivals[0] == arrivals[1] != arrivals[2]


@pytest.mark.parametrize("transport", [WebsocketsTransport(), MemoryTransport()])
async def test_a_narrow_way_lets_bytes_trickle(transport: Transport, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
        network.to_client.bandwidth = 100
        trio_wsprim.make_heartbeat_ws(ws, interval=1, wait=1)  # which would find a silent peer dead
        await peer.send(b"x" * 996)  # a frame of 1000 bytes
        assert await ws.receive() == b"x" * 996
        assert trio.current_time() == pytest.approx(10)
        network.to_client.bandwidth = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve_echo)
            await ws.aclose()
        assert peer.frames[0].opcode == Opcode.CLOSE  # no heartbeat was needed


@pytest.mark.parametrize("name", ["latency", "jitter", "bandwidth"])
def test_ways_refuse_nonsense(name: str) -> None:
    way = MemoryNetwork().to_server
    for value in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=name):
            setattr(way, name, value)
    assert (way.latency, way.jitter, way.bandwidth) == (0, 0, None)


# --- black holes ---


@pytest.mark.parametrize("end", ["drop", "reset"])
async def test_nothing_gets_out_of_a_frozen_connection_until_it_thaws(
    end: str, transport: Transport, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
        peer.freeze()
        await peer.send("held")
        with trio.move_on_after(100) as patience:
            await ws.receive()
        assert patience.cancelled_caught
        peer.thaw()
        assert await ws.receive() == "held"

        peer.freeze()
        getattr(peer, end)()
        with trio.move_on_after(100) as patience:
            await ws.receive()
        assert patience.cancelled_caught
        await ws.send("into the void")
        await ws.flush()
        peer.thaw()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.code == 1006


async def test_a_frozen_network_holds_everybody_up(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    ours, gone = [await network.open_stream("example.test", 80) for _ in range(2)]
    peers = [await network.accept() for _ in range(2)]
    network.freeze()
    network.freeze()
    await ours.send_all(b"x")
    gone.close()
    dialled: list[float] = []

    async def dial() -> None:
        await network.open_stream("example.test", 80)
        dialled.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        await trio.sleep(60)
        with trio.move_on_after(1) as patience:
            await peers[1].stream.receive_some()
        assert patience.cancelled_caught
        network.thaw()
        network.thaw()
        assert await peers[0].stream.receive_some() == b"x"
        assert await peers[1].stream.receive_some() == b""
    assert dialled == [61]
    assert network.live == 2
    ours.close()
    assert network.live == 1


async def test_only_memory_can_be_frozen() -> None:
    ours, _ = memory_stream_pair()
    peer_over(trio.StapledStream(ours, ours))
    with pytest.raises(TypeError, match=r"^a StapledStream cannot be frozen: only memory can"):
        peer_over(trio.StapledStream(ours, ours)).freeze()


# --- frames that are none ---


async def test_a_part_of_a_frame_is_no_message_until_the_rest_comes(
    transport: Transport, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        await peer.accept()
        await peer.send_part("hello", 4)
        with trio.move_on_after(1) as patience:
            await ws.receive()
        assert patience.cancelled_caught
        await peer.send_raw(b"llo")
        await peer.send("whole")
        assert await ws.receive() == "hello"
        assert await ws.receive() == "whole"
        await peer.send_part(b"torn", 5)
        await peer.send("whose header is payload")
        assert await ws.receive() == b"tor\x81"
        with pytest.raises(ConnectionClosed):
            await ws.receive()


@pytest.mark.parametrize("size", [0, 7, -1])
async def test_a_part_is_no_whole(size: int) -> None:
    with pytest.raises(ValueError, match=r"^size must be from 1 to 6, as the frame has 7, got"):
        await peer_over(memory_stream_pair()[0]).send_part("hello", size)


async def test_what_is_garbled_is_never_a_message(transport: Transport, autojump_clock: MockClock) -> None:
    for seed in range(20):
        network = MemoryNetwork(seed=seed)
        with pytest.raises(ConnectionClosed) as caught:
            async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
                peer = await network.accept()
                await peer.accept()
                await peer.send("good")
                await peer.send_garbled("good")
                assert await ws.receive() == "good"
                await ws.receive()
        assert caught.value.code == 1002


async def test_a_garbled_answer_is_no_handshake(transport: Transport, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(ConnectionFailed):
        async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
            await (await network.accept()).send_garbled("x")
            await ws.wait_open()


# --- reading slowly, closing politely ---


async def test_who_reads_slowly_is_waited_for(transport: Transport, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(buffer_size=500)
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read_slowly, 100)
            for _ in range(100):
                await ws.send(b"x" * 94)  # a frame of 100 bytes
            await ws.flush()
            assert trio.current_time() == pytest.approx(95, abs=2)
            await trio.sleep(10)
            assert [frame.payload for frame in peer.frames] == [b"x" * 94] * 100
            nursery.cancel_scope.cancel()
        await peer.close()


async def test_who_reads_slowly_reads_the_request_too_and_never_answers(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    stream = await network.open_stream("example.test", 80)
    peer = await network.accept()
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    stream.close()

    await peer.read_slowly(1)

    assert peer.request is not None
    with pytest.raises(ValueError, match="bytes_per_second"):
        await peer.read_slowly(0)


async def test_a_peer_closes_as_servers_do(transport: Transport, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=transport) as ws:
        peer = await network.accept()
        assert not peer.is_open
        await peer.accept()
        assert peer.is_open
        await ws.send("on its way")
        await ws.flush()
        await peer.close(1001, "later")
        assert not peer.is_open
        closed = await ws.wait_closed()
        assert (closed.code, closed.reason, closed.clean) == (1001, "later", True)
        assert [frame.opcode for frame in peer.frames] == [Opcode.TEXT, Opcode.CLOSE]
        assert network.log[-2].line == "server FIN"


async def test_a_peer_whose_client_hangs_up_instead_of_answering_is_told() -> None:
    ours, theirs = memory_stream_pair()
    ours.close()
    with pytest.raises(trio.BrokenResourceError):
        await peer_over(theirs).close()

    ours, theirs = memory_stream_pair()
    await ours.send_eof()
    with pytest.raises(trio.EndOfChannel):
        await peer_over(theirs).close()
    assert await ours.receive_some() == b"\x88\x02\x03\xe8"
    assert await ours.receive_some() == b""


# --- time, and chance ---


async def hours(seed: int) -> str:
    """A bad day: refused, rejected, garbled, jittery; give its transcript."""
    network = MemoryNetwork(seed=seed)
    network.to_client.latency, network.to_client.jitter = 0.1, 0.4
    network.refuse(20)
    network.reject(503, [("Retry-After", "200")], count=20)

    async def misbehave(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep(300)
        await peer.send_garbled("x")
        with trio.move_on_after(5):
            await peer.receive()

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.serve, misbehave)
        backoff = Backoff(maximum=600, rng=random.Random(seed))
        socket = trio_wsprim.create_reconnecting_ws(
            URL, open_stream=network.open_stream, transport=network.transport, delay=backoff, retry_if=lambda _: True
        )
        with trio.move_on_after(12 * 3600):
            async with socket as ws:
                await ws.wait_closed()
        nursery.cancel_scope.cancel()
    return "\n".join(f"{entry.time - start:.3f} {entry.line}" for entry in network.log if entry.kind != "FIN")


async def test_half_a_day_is_the_same_for_the_same_seed(autojump_clock: MockClock) -> None:
    first, again, other = await hours(1), await hours(1), await hours(2)

    assert first == again != other
    assert first.count("REFUSED") == 20
    assert first.count("server 503") == 20
    assert first.count("CLOSE 1002") > 10


async def test_peer_closed_is_still_what_receive_raises(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = trio_wsprim.make_ws(nursery, URL, open_stream=network.open_stream, transport=network.transport)
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
        nursery.start_soon(ws.aclose, 3000, "bye")
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
    assert (caught.value.code, caught.value.reason) == (3000, "bye")
