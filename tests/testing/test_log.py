"""The log of a network tells what happened, and assertions on it show where it was something else."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_wsprim
from trio_wsprim.testing import FrameLog, LogEntry, MemoryNetwork, MemoryStream, Opcode, Peer, encode_frame
from trio_wsprim.testing._log import Recorder

URL = "wss://example.test/chat?token=secret"


async def connect(network: MemoryNetwork) -> tuple[MemoryStream, Peer]:
    return await network.open_stream("example.test", 80), await network.accept()


async def talk(network: MemoryNetwork) -> None:
    """A greeting, a second later an answer, and a close."""
    with network.replacing_tcp():
        async with trio_wsprim.create_ws(URL, headers={"X-Token": "secret"}) as ws:
            peer = await network.accept()
            await peer.accept()
            await ws.send("hello")
            assert await peer.receive() == "hello"
            await trio.sleep(1)
            await peer.send(b"\x00\x01")
            assert await ws.receive() == b"\x00\x01"
            await trio.sleep(0.5)
            await peer.close(4000, "go away")
            with pytest.raises(trio_wsprim.ConnectionClosed):
                await ws.receive()


TRANSCRIPT = r"""
     0.000  #1  client DIAL example.test:443
     0.000  #1  client GET /chat?…
     0.000  #1  server 101 Switching Protocols
     0.000  #1  client TEXT 'hello'
     1.000  #1  server BINARY b'\x00\x01'
     1.500  #1  server CLOSE 4000 'go away'
     1.500  #1  client CLOSE 4000 'go away'
     1.500  #1  server FIN
     1.500  #1  client FIN
""".strip("\n")


# --- what is in it ---


async def test_its_repr_is_a_transcript(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    assert repr(network.log) == "(nothing happened)"
    await talk(network)
    assert repr(network.log) == TRANSCRIPT
    assert "secret" not in repr(network.log)


async def test_bytes_and_parcels_are_told_alike(autojump_clock: MockClock) -> None:
    lines: list[list[str]] = []
    for transport in (trio_wsprim.WebsocketsTransport(), MemoryNetwork().transport):
        network = MemoryNetwork()
        async with trio_wsprim.create_ws(
            "ws://example.test/", open_stream=network.open_stream, transport=transport
        ) as ws:
            peer = await network.accept()
            await peer.accept()
            await ws.send("é" * 100)
            await peer.receive()
            with trio.move_on_after(0):
                await ws.ping()
            await peer.close()
        lines.append([entry.line for entry in network.log if entry.kind != "ping"])
    assert lines[0] == lines[1]
    assert lines[0][3] == f"client TEXT {'é' * 60!r}… (100 characters)"


async def test_entries_hold_everything(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)

    dial, request, answer, text, binary, close, *_ = network.log

    assert (dial.kind, dial.sender, dial.connection, dial.time) == ("dial", "client", 1, 0)
    assert request.request is not None
    assert request.request.path == "/chat?token=secret"
    assert request.request.header("x-token") == "secret"
    assert (answer.status, answer.data[:12]) == (101, b"HTTP/1.1 101")
    assert text.frame is not None
    assert (text.frame.opcode, text.frame.payload, text.frame.masked) == (Opcode.TEXT, b"hello", True)
    assert (binary.kind, binary.time) == ("binary", 1)
    assert close.frame is not None
    assert close.frame.payload == b"\x0f\xa0go away"


async def test_every_kind_of_frame_has_its_words() -> None:
    network = MemoryNetwork()
    stream, peer = await connect(network)
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await peer.accept()
    for opcode, payload, options in (
        (Opcode.TEXT, b"a", {"fin": False}),
        (Opcode.PING, b"", {}),
        (Opcode.PONG, b"p", {}),
        (Opcode.CONTINUATION, b"", {}),
        (Opcode.BINARY, b"x" * 61, {}),
        (Opcode.TEXT, b"\xff", {}),
        (5, b"", {}),
        (Opcode.CLOSE, b"", {}),
        (Opcode.CLOSE, b"\x03", {}),
        (Opcode.CLOSE, b"\x03\xe8", {}),
    ):
        await peer.send_frame(opcode, payload, **options)
    await peer.send_frame(Opcode.TEXT, b"squeezed", rsv=4)

    network.log.select(sender="server")[1:].assert_lines(
        "server TEXT 'a' (more follows)",
        "server PING",
        "server PONG b'p'",
        "server CONTINUATION b''",
        f"server BINARY {b'x' * 60!r}… (61 bytes)",
        r"server TEXT '\\xff'",
        "server OPCODE 5",
        "server CLOSE",
        r"server CLOSE b'\x03'",
        "server CLOSE 1000",
        "server TEXT 'squeezed' rsv=4",
    )
    assert network.log.messages() == ["a", b"x" * 61, "\\xff", "squeezed"]


async def test_what_comes_in_pieces_is_told_when_it_is_whole(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    stream, peer = await connect(network)
    for piece in (b"GET / HTTP/1.1\r\n", b"\r\n" + encode_frame(1, b"x", masked=True)[:3]):
        await stream.send_all(piece)
        await trio.sleep(1)
    await stream.send_all(encode_frame(1, b"x", masked=True)[3:] + b"\x81\x85")
    for piece in (b"HTTP/1.1 103 Early\r\n\r\nHTTP", b"/1.1 101 x\r\n\r\n\x81"):
        await peer.send_raw(piece)
    stream.close()
    peer.drop()

    assert repr(network.log).splitlines() == [
        "     0.000  #1  client DIAL example.test:80",
        "     1.000  #1  client GET /",
        "     2.000  #1  client TEXT 'x'",
        "     2.000  #1  server 103 Early",
        "     2.000  #1  server 101 x",
        "     2.000  #1  client TORN after 2 bytes",
        "     2.000  #1  client FIN",
        "     2.000  #1  server TORN after 1 byte",
        "     2.000  #1  server FIN",
    ]
    assert network.log.select(kind="torn")[0].data == b"\x81\x85"


async def test_after_a_reset_nobody_says_anything() -> None:
    network = MemoryNetwork()
    stream, peer = await connect(network)
    peer.reset()
    stream.close()

    network.log.assert_lines("client DIAL example.test:80", "server RST")


async def test_eof_is_told_once() -> None:
    network = MemoryNetwork()
    stream, _ = await connect(network)
    await stream.send_eof()
    await stream.send_eof()
    stream.close()

    network.log.assert_lines("...", "client FIN")


async def test_what_is_no_http_is_only_counted() -> None:
    network = MemoryNetwork()
    stream, peer = await connect(network)
    await stream.send_all(b"\x16\x03\x01")
    await stream.send_all(b"G")
    await peer.send_raw(b"what?")

    network.log.assert_lines("...", "client 3 BYTES", "client 1 BYTE", "server 5 BYTES")


async def test_a_tunnel_is_entered() -> None:
    network = MemoryNetwork()
    stream, peer = await connect(network)
    await stream.send_all(b"CONNECT example.test:80 HTTP/1.1\r\n\r\n")
    await peer.send_raw(b"HTTP/1.1 200 OK\r\n\r\n")
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await peer.send_raw(b"HTTP/1.1 404\r\n\r\nn")
    await peer.send_raw(b"ot here")

    network.log[1:].assert_lines(
        "client CONNECT example.test:80",
        "server 200 OK",
        "client GET /",
        "server 404",
        "server BODY of 1 byte",
        "server BODY of 7 bytes",
    )
    assert [entry.status for entry in network.log.select(kind="answer")] == [200, 404]


async def test_a_status_that_is_no_number_is_0() -> None:
    network = MemoryNetwork()
    _, peer = await connect(network)
    await peer.send_raw(b"HTTP/1.1\r\n\r\nHTTP/1.1 OK\r\n\r\n")

    assert [entry.status for entry in network.log.select(kind="answer")] == [0, 0]


async def test_a_parcel_behind_half_a_frame_is_its_payload(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        ws = trio_wsprim.make_ws(
            nursery, "ws://example.test/", open_stream=network.open_stream, transport=network.transport
        )
        peer = await network.accept()
        await peer.accept()
        await ws.wait_open()
        await peer.send_part(b"1234", 3)
        await peer.send("x")
        assert network.log[-1].line == r"server BINARY b'1\x81\x01x'"
        nursery.cancel_scope.cancel()


# --- how much of it ---


async def test_the_oldest_is_forgotten_when_it_becomes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_wsprim.testing._network._LOG_BYTES", 2_500_000)
    network = MemoryNetwork(buffer_size=2**24)
    stream, peer = await connect(network)
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await peer.accept()
    for number in range(10):
        await peer.send(bytes([number]) * 1_000_000)

    assert [entry.kind for entry in network.log] == ["binary", "binary"]
    frame = network.log[-1].frame
    assert frame is not None
    assert frame.payload[0] == 9


async def test_looking_at_it_while_it_grows_is_fine() -> None:
    recorder = Recorder(1000)
    log = recorder.log()
    recorder.note(1, "client", "dial", "a")
    for _ in log:
        recorder.note(2, "client", "dial", "b")

    assert len(log) == 2


# --- choosing from it ---


async def test_entries_are_chosen_by_all_that_is_asked_for(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)
    await talk(network)
    log = network.log

    assert [entry.line for entry in log.select(kind="text")] == ["client TEXT 'hello'"] * 2
    assert len(log.select(kind=["text", "binary"], connection=2)) == 2
    assert {entry.sender for entry in log.select(sender="server")} == {"server"}
    assert [entry.kind for entry in log.select(since=1, until=1.4)] == ["binary"]
    assert len(log.select(where=lambda entry: "go away" in entry.line)) == 4
    assert len(log.select(kind="FIN", sender="client", connection=3)) == 0
    assert log.messages(sender="client") == ["hello", "hello"]
    assert log.messages(connection=1) == ["hello", b"\x00\x01"]


async def test_what_was_chosen_stays_as_it_is(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)
    chosen = network.log[:3]
    await talk(network)

    assert isinstance(chosen, FrameLog)
    assert len(chosen) == len(chosen.select()) == 3
    assert isinstance(network.log[0], LogEntry)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kind must be of dial, .*, got \['TEXT'\]$"):
        FrameLog().select(kind="TEXT")  # type: ignore[arg-type]


# --- asserting on it ---


async def test_lines_match_with_and_without_numbers_and_wildcards(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)
    log = network.log

    log.assert_lines("...")
    log.assert_lines("client DIAL example.test:443", "...", "#1 client FIN")
    log.assert_lines("...", "...", "client TEXT 'hello'", "...", "server FIN", "client FIN", "...", "...")
    FrameLog().assert_lines()


async def test_a_difference_is_shown_with_what_happened_around_it(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)
    await talk(network)

    with pytest.raises(AssertionError) as caught:
        network.log.select(connection=1).assert_lines(
            *[entry.line for entry in network.log[:6]], "client TEXT 'what?'", "..."
        )

    assert str(caught.value).splitlines() == [
        "line 7 is another",
        "  expected: client TEXT 'what?'",
        "  found:    client CLOSE 4000 'go away'",
        "  (1 before)",
        "       0.000  #1  client GET /chat?…",
        "       0.000  #1  server 101 Switching Protocols",
        "       0.000  #1  client TEXT 'hello'",
        r"       1.000  #1  server BINARY b'\x00\x01'",
        "       1.500  #1  server CLOSE 4000 'go away'",
        ">      1.500  #1  client CLOSE 4000 'go away'",
        "       1.500  #1  server FIN",
        "       1.500  #1  client FIN",
    ]


async def test_a_difference_at_the_end_says_so(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)

    with pytest.raises(AssertionError) as missing:
        network.log.assert_lines("...", "client FIN", "client DIAL example.test:443")
    assert str(missing.value).splitlines()[1:3] == [
        "  expected: client FIN or client DIAL example.test:443",
        "  found:    the end",
    ]
    assert str(missing.value).splitlines()[-1] == "> (the end)"

    with pytest.raises(AssertionError) as more:
        network.log.assert_lines("client DIAL example.test:443")
    assert "expected: the end\n  found:    client GET /chat?…\n" in str(more.value)
    assert str(more.value).endswith("  (2 after)")


async def test_messages_are_compared_one_by_one(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    await talk(network)
    log = network.log

    log.assert_messages("hello", b"\x00\x01")
    log.assert_messages("hello", sender="client", connection=1)
    for expected, found, wanted in (
        (("hello", "hello"), r"b'\x00\x01'", "'hello'"),
        (("hello",), r"b'\x00\x01'", "no more"),
        (("hello", b"\x00\x01", "bye"), "no more", "'bye'"),
    ):
        with pytest.raises(AssertionError) as caught:
            log.assert_messages(*expected)
        text = str(caught.value)
        assert f"  expected: {wanted}\n  found:    {found}\n" in text
        assert ">      1.000  #1  server BINARY" in text or "> " in text.splitlines()[-1]
        assert text.startswith(f"message {min(len(expected), 3) if wanted != 'no more' else 2} is another")


async def test_a_message_in_fragments_is_one_also_between_others(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    with network.replacing_tcp():
        async with trio_wsprim.create_ws("ws://example.test/") as ws:
            peer = await network.accept()
            await peer.accept()
            await peer.send_frame(Opcode.TEXT, b"a", fin=False)
            await ws.send("between")
            await wait_all_tasks_blocked()
            await peer.send_frame(Opcode.CONTINUATION, b"b")
            assert await ws.receive() == "ab"
            await peer.close()

    network.log.assert_messages("between", "ab")
    network.log.assert_messages("ab", sender="server")
