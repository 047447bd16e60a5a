"""The transport without bytes is as good as those with; the contract's tests say the rest of it."""

import ssl

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim
from tests.tls import HOST, client_context, server_context
from trio_wsprim.abc import Ending, Link, Ping, Pong, Upgrade
from trio_wsprim.testing import (
    Frame,
    MemoryNetwork,
    MemoryTransport,
    Opcode,
    Peer,
    encode_frame,
    memory_stream_pair,
    pair_over,
    peer_over,
)
from trio_wsprim.testing._memory import Parcel, parcel_of

URL = "ws://example.test/"


# --- parcels ---


@pytest.mark.parametrize("message", ["", "a" * 125, "é" * 63, b"x" * 126, b"x" * 65535, b"x" * 65536])
@pytest.mark.parametrize("masked", [True, False])
def test_a_parcel_is_as_large_as_its_frame(message: str | bytes, masked: bool) -> None:
    parcel = parcel_of(message, masked=masked)
    assert parcel.size == len(parcel.encode())


async def test_who_reads_bytes_reads_parcels_as_frames() -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"before")
    await ours.send_parcel(parcel_of("one", masked=False))
    await ours.send_parcel(parcel_of(b"two", masked=True))
    await ours.send_all(b"after")

    assert await theirs.receive_some(8) == b"before" + encode_frame(1, b"one")[:2]
    assert await theirs.receive_some() == b"one" + encode_frame(2, b"two", masked=True) + b"after"


async def test_who_knows_parcels_gets_them_one_by_one_between_the_bytes() -> None:
    ours, theirs = memory_stream_pair()
    one, two = parcel_of("one", masked=False), parcel_of(b"two", masked=False)
    await ours.send_all(b"before")
    await ours.send_parcel(one)
    await ours.send_parcel(two)
    ours.close()

    assert [await theirs.receive_chunk() for _ in range(5)] == [b"before", one, two, b"", b""]


async def test_a_parcel_for_which_there_is_no_room_goes_in_bytes(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair(buffer_size=4)
    with trio.move_on_after(1):
        await ours.send_parcel(parcel_of("hello", masked=False))
    assert await theirs.receive_chunk() == encode_frame(1, b"hello")[:4]


async def test_a_parcel_behind_half_a_frame_is_its_payload() -> None:
    ours, theirs = memory_stream_pair()
    frame = encode_frame(2, b"x" * 20)
    await ours.send_all(frame[:5])
    await ours.send_parcel(parcel_of("within", masked=False))
    await ours.send_all(frame[13:])

    assert (await peer_over(theirs).receive_frame()).payload == b"xxx\x81\x06within" + b"x" * 9


async def test_parcels_wait_for_their_time_as_bytes_do(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    network.to_server.latency = 3
    stream = await network.open_stream("example.test", 80)
    theirs = peer_over((await network.accept()).stream)
    await stream.send_parcel(Parcel(Opcode.PING, b"p", 1, masked=True))

    assert (await theirs.receive_frame(), trio.current_time()) == (Frame(Opcode.PING, b"p"), 3)


# --- links ---


async def test_messages_do_not_become_bytes_on_their_way(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        monkeypatch.setattr(Parcel, "encode", None)
        await link.send(["out", b"and", Ping(b"p")])
        assert await peer.receive_all(2) == ["out", b"and"]
        assert await peer.receive_frame() == Frame(Opcode.PING, b"p")
        await peer.send("in")
        await peer.send(b"too")
        assert await link.receive() == ["in", b"too"]


async def test_what_comes_with_the_answer_is_not_lost(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=network.transport) as ws:
        peer = await network.accept()
        await peer.read_request()
        peer.freeze()
        await peer.accept()
        await peer.send("early")
        await peer.send_raw(encode_frame(1, b"bird")[:4])
        peer.thaw()
        await wait_all_tasks_blocked()
        await peer.send_raw(encode_frame(1, b"bird")[4:])
        assert [await ws.receive(), await ws.receive()] == ["early", "bird"]
        await peer.close()


async def test_a_message_within_another_is_a_breach(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        await peer.send_frame(Opcode.TEXT, b"a", fin=False)
        await peer.send("b")
        with pytest.raises(trio_wsprim.ConnectionClosed) as caught:
            await link.receive()
        assert caught.value.code == 1002


@pytest.mark.parametrize("is_text", [False, True])
async def test_a_parcel_over_the_limit_is_refused(is_text: bool, autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(max_message_bytes=9) as (link, peer):
        await peer.send("é" * 4)
        assert await link.receive() == ["é" * 4]
        await peer.send("é" * 5 if is_text else bytes(10))
        with pytest.raises(trio_wsprim.ConnectionClosed) as caught:
            await link.receive()
        assert caught.value.code == 1009


async def test_what_was_read_before_a_reset_is_received_before_it(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        await peer.send_raw(encode_frame(1, b"one") + encode_frame(Opcode.PING, b"") + encode_frame(1, b"two"))
        assert await link.receive() == ["one"]
        peer.reset()
        assert await link.receive() == ["two"]
        with pytest.raises(trio_wsprim.ConnectionClosed):
            await link.receive()


async def test_our_close_takes_over_from_who_receives(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(receives_until_we_close, link)
        await wait_all_tasks_blocked()
        nursery.start_soon(link.aclose, 1000, "")
        await wait_all_tasks_blocked()
        await peer.ping(b"late")
        await peer.close()
    assert link.ending == Ending(1000, "", clean=True)
    assert [frame.opcode for frame in peer.frames] == [Opcode.CLOSE]


async def receives_until_we_close(link: Link) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await link.receive()


@pytest.mark.parametrize("end", ["drop", "reset"])
async def test_what_came_before_the_end_is_received_before_it(end: str, autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        await peer.send("last")
        if end == "drop":
            peer.drop()
            assert await link.receive() == ["last"]
        else:
            peer.reset()  # which destroys it
        for _ in range(2):
            with pytest.raises(trio_wsprim.ConnectionClosed) as caught:
                await link.receive()
            assert caught.value.code == 1006


async def test_a_close_discards_what_comes_before_it_in_whatever_form(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.aclose, 1000, "")
        assert (await peer.receive_frame()).opcode == Opcode.CLOSE
        await peer.send("a parcel")
        await peer.send_fragments(["frag", "ments"])
        whole = encode_frame(Opcode.TEXT, b"a long message" * 5)
        await peer.send_raw(whole[:5])
        await wait_all_tasks_blocked()
        await peer.send("within it")
        await peer.send_raw(whole[5 + len(encode_frame(Opcode.TEXT, b"within it")) :])
        await peer.send_close(1001, "so be it")
        peer.drop()
    assert link.ending == Ending(1001, "so be it", clean=True)


async def test_a_close_that_crosses_the_peers_waits_until_ours_is_out(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(buffer_size=10) as (link, peer), trio.open_nursery() as nursery:
        link.send_nowait([b"1234"])
        await link.send(())
        await peer.send_close(1000)
        nursery.start_soon(link.aclose, 1000, "a reason for which there is no room")
        await trio.sleep(1)
        assert link.ending.clean is False
        assert (await peer.receive_frame()).payload == b"1234"
        assert (await peer.receive_frame()).payload[2:] == b"a reason for which there is no room"
        await wait_all_tasks_blocked()
        assert link.ending == Ending(1000, "", clean=True)


async def test_of_many_pongs_only_the_newest_is_owed_to_who_does_not_read(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(buffer_size=30) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        for number in range(10):
            await peer.ping(b"%d" % number * 10)
            await wait_all_tasks_blocked()
        frames = [await peer.receive_frame() for _ in range(3)]
        assert [frame.payload for frame in frames] == [b"0" * 10, b"1" * 10, b"9" * 10]
        nursery.cancel_scope.cancel()


async def test_a_pong_that_waits_for_room_goes_out_between_two_messages(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(buffer_size=20) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        nursery.start_soon(link.send, [b"a" * 20, b"b" * 20])
        await wait_all_tasks_blocked()
        await peer.ping(b"?")
        await wait_all_tasks_blocked()
        frames = [await peer.receive_frame() for _ in range(3)]
        assert [frame.payload for frame in frames] == [b"a" * 20, b"?", b"b" * 20]
        nursery.cancel_scope.cancel()


async def test_a_message_waits_for_a_pong_that_is_half_out(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(buffer_size=10) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        await peer.send_raw(encode_frame(Opcode.PING, b"?" * 8))
        await wait_all_tasks_blocked()
        nursery.start_soon(link.send, ["behind"])
        await wait_all_tasks_blocked()
        assert (await peer.receive_frame()).payload == b"?" * 8
        assert await peer.receive() == "behind"
        nursery.cancel_scope.cancel()


async def test_what_is_owed_is_forgotten_when_the_peer_is_gone(autojump_clock: MockClock) -> None:
    for is_stuck in (True, False):
        async with pair_over(MemoryTransport())(buffer_size=30) as (link, peer), trio.open_nursery() as nursery:
            nursery.start_soon(receive_until_the_end, link)
            for _ in range(5 if is_stuck else 1):
                await peer.ping(b"p" * 10)
                await wait_all_tasks_blocked()
            if is_stuck:
                peer.reset()
            else:
                await peer.ping(b"p" * 10)
                peer.drop()


async def receive_until_the_end(link: Link) -> None:
    with pytest.raises(trio_wsprim.ConnectionClosed):
        while True:
            await link.receive()


async def test_a_queued_close_is_the_last_frame(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        await peer.send_raw(encode_frame(Opcode.PING, b"") + encode_frame(Opcode.CLOSE, b"\x03\xe8"))
        await peer.ping(b"too late")
        with pytest.raises(trio_wsprim.ConnectionClosed):
            await link.receive()
        await peer.half_close()
        await link.aclose(1000, "")
        assert [(await peer.receive_frame()).opcode for _ in range(2)] == [Opcode.PONG, Opcode.CLOSE]
        await link.aclose(1000, "")  # twice is fine


async def test_a_send_that_meets_a_close_of_ours_fails(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())(buffer_size=10) as (link, peer), trio.open_nursery() as nursery:
        nursery.start_soon(fails_to_send, link)
        await wait_all_tasks_blocked()
        await peer.send_raw(b"\xff\xff")
        with pytest.raises(trio_wsprim.ConnectionClosed):
            await link.receive()
        assert (await peer.receive_frame()).payload == b"a" * 20
        assert (await peer.receive_frame()).opcode == Opcode.CLOSE


async def fails_to_send(link: Link) -> None:
    with pytest.raises(trio_wsprim.ConnectionClosed) as caught:
        await link.send([b"a" * 20, b"b"])
    assert caught.value.code == 1002
    assert link.items_sent == 1


async def test_pongs_come_alone_and_messages_before_them(autojump_clock: MockClock) -> None:
    async with pair_over(MemoryTransport())() as (link, peer):
        await peer.send("a")
        await peer.pong(b"1")
        await peer.send("b")
        assert [await link.receive() for _ in range(3)] == [["a"], [Pong(b"1")], ["b"]]


# --- handshakes ---


@pytest.mark.parametrize("key", ["", "AAAA", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo"])
async def test_a_wrong_accept_key_is_a_wrong_handshake(key: str, autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with pytest.raises(trio_wsprim.ConnectionFailed) as caught:
        async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=network.transport) as ws:
            await (await network.accept()).accept(accept_key=key)
            await ws.wait_open()
    assert caught.value.permanent
    assert "Sec-WebSocket-Accept" in str(caught.value)
    assert network.live == 0


async def test_a_subprotocol_is_agreed_on_or_refused(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(
        URL, ["one", "two"], open_stream=network.open_stream, transport=network.transport, headers={"X-A": "b"}
    ) as ws:
        peer = await network.accept()
        request = await peer.accept("two")
        await ws.wait_open()
        assert ws.subprotocol == "two"
        assert request.header("sec-websocket-protocol") == "one, two"
        assert request.header("x-a") == "b"
        await peer.close()

    with pytest.raises(trio_wsprim.ConnectionFailed) as caught:
        async with trio_wsprim.create_ws(URL, open_stream=network.open_stream, transport=network.transport) as ws:
            await (await network.accept()).accept("three")
            await ws.wait_open()
    assert caught.value.permanent


# --- other streams ---


async def test_over_tls_it_leaves_the_link_to_a_real_transport(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio_wsprim.create_ws(
        f"wss://{HOST}/",
        open_stream=network.open_stream,
        ssl_context=client_context(),
        transport=MemoryTransport(otherwise=trio_wsprim.TrioWebsocketTransport()),
    ) as ws:
        peer = over_tls(await network.accept(), server_context())
        await peer.accept()
        await ws.send("hello")
        assert await peer.receive() == "hello"
        peer.freeze()
        await ws.send("later")
        with trio.move_on_after(1) as patience:
            await peer.receive()
        assert patience.cancelled_caught
        peer.thaw()
        assert await peer.receive() == "later"
        await peer.close()
    assert network.log[1].line.endswith("BYTES")


def over_tls(peer: Peer, context: ssl.SSLContext) -> Peer:
    return peer_over(trio.SSLStream(peer.stream, context, server_side=True, https_compatible=True))


async def test_over_any_other_stream_it_takes_the_best_that_is_installed(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer_over(theirs).accept)
        upgrade = Upgrade(host="example.test", resource="/")
        link = await MemoryTransport().connect(nursery, trio.StapledStream(ours, ours), upgrade)
        assert type(link).__name__ == "LaneLink"
        await link.abort()
