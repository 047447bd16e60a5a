"""`connect` in this process: over loopback, with standard input, output and error from pipes and files."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from tests.cli.tools import LIMIT, echo, end, interrupt, replaced, serving, typed
from trio_wsprim import CloseEvent, ConnectionClosed, DropEvent, Event
from trio_wsprim.__main__ import main
from trio_wsprim._cli import _connect, _pipes
from trio_wsprim._cli._arguments import ConnectOrder
from trio_wsprim._cli._lines import MAX_LINE, Intake, LineEditor, LineSplitter
from trio_wsprim._cli._pipes import write_all
from trio_wsprim._cli._signals import Stop
from trio_wsprim.testing import Peer, PeerClosed

# An echo comes before the pong that proves what it echoes, so this is enough, however slow the machine.
SHORT: Final = ("--linger", "0.2")


@pytest.fixture(autouse=True)
def _be_bounded() -> Generator[None]:
    """Nothing here takes long; what hangs is ended as a user would end it."""
    before = signal.signal(signal.SIGALRM, lambda *_: interrupt())
    signal.setitimer(signal.ITIMER_REAL, 60, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def connect(url: str, *options: str) -> int:
    return main(["connect", *options, url]) or 0


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def names(output: str) -> list[str]:
    return [event["event"] for event in events(output)]


# --- in a pipe ---


def test_lines_go_out_and_messages_come_in_and_it_ends_well(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as url, typed(b"hello\n\nw\xc3\xb6rld\r\nlast"):
        assert connect(url, *SHORT) == 0

    output, errors = capfd.readouterr()
    assert output == "hello\n\nwörld\nlast\n"
    assert errors == f"connecting to {url} (attempt 1)\nopen\nclosed with code 1000\nended\n"


def test_for_scripts_each_event_is_a_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    async def answer(peer: Peer, _number: int) -> None:
        await peer.accept("chat")
        await peer.send("w\u2028\n")
        await peer.send(b"\x00\xff")
        await peer.serve_echo()

    with serving(answer) as url, typed(b""):
        assert connect(url, "--json", "--subprotocol", "chat", *SHORT) == 0

    output, errors = capfd.readouterr()
    found = events(output)
    assert errors == ""
    assert [event["event"] for event in found] == ["connect", "open", "message", "message", "close", "end"]
    assert found[0]["url"] == url
    assert found[1]["subprotocol"] == "chat"
    assert found[2]["text"] == "w\u2028\n"
    assert found[3]["base64"] == "AP8="
    assert (found[4]["code"], found[4]["clean"], found[4]["unconfirmed"]) == (1000, True, 0)
    assert found[5]["error"] is None


def test_what_cannot_be_sent_is_told_and_the_rest_goes(capfd: pytest.CaptureFixture[str]) -> None:
    long = b"a" * (MAX_LINE + 1)
    with serving() as url, typed() as keys, written_by_a_thread(keys, b"one\n\xff\n" + long + b"\nfour"):
        assert connect(url, *SHORT) == 1

    output, errors = capfd.readouterr()
    assert output == "one\nfour\n"
    assert "line 2 was not sent: not UTF-8\n" in errors
    assert f"line 3 was not sent: longer than {MAX_LINE} bytes\n" in errors


@contextmanager
def written_by_a_thread(descriptor: int, data: bytes) -> Generator[None]:
    """Write more than a pipe holds, beside the block, and close it."""
    copy = os.dup(descriptor)
    end(descriptor)

    def write() -> None:
        with os.fdopen(copy, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    thread.join()


def test_input_may_be_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "input").write_text("hello\n")
    with (tmp_path / "input").open() as file, serving() as url, replaced(0, file.fileno()):
        assert connect(url, *SHORT) == 0

    assert capfd.readouterr().out == "hello\n"


def test_answers_are_waited_for_as_long_as_one_wants(capfd: pytest.CaptureFixture[str]) -> None:
    async def answer_late(peer: Peer, _number: int) -> None:
        await peer.accept()
        await peer.receive()
        with trio.move_on_after(0.3):
            await peer.receive()  # which is where pings are answered
        await peer.send("late")
        await peer.close()

    with serving(answer_late) as url, typed(b"hello\n"):
        assert connect(url, "--linger", "inf", "--once") == 0

    assert capfd.readouterr().out == "late\n"


def test_headers_and_credentials_are_sent_and_never_shown(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, str]] = []

    async def look(peer: Peer, _number: int) -> None:
        request = await peer.read_request()
        seen.append({"path": request.path, **dict(request.headers)})
        await echo(peer, 1)

    with serving(look) as url, typed(b""):
        secret_url = url.replace("://", "://tom:SECRET@") + "x?token=SECRET"
        assert connect(secret_url, "-H", "X-Token: SECRET", "--json", *SHORT) == 0
        assert connect(secret_url, "-H", "X-Token: SECRET", *SHORT) == 0

    output, errors = capfd.readouterr()
    assert seen[0]["path"] == "/x?token=SECRET"
    assert seen[0]["x-token"] == "SECRET"
    assert seen[0]["authorization"].startswith("Basic ")
    assert "SECRET" not in output + errors
    assert f"{url}x?…" in errors


# --- connections that end ---


async def drop_the_first(peer: Peer, number: int) -> None:
    await peer.accept()
    if number == 1:
        await peer.receive()
        await peer.close(1012, "restart")
    await peer.serve_echo()


def test_it_dials_again_and_sends_what_was_typed_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    with typed() as keys:

        async def type_later(peer: Peer, number: int) -> None:
            if number == 2:
                os.write(keys, b"second\n")
                end(keys)
            await drop_the_first(peer, number)

        with serving(type_later) as url:
            os.write(keys, b"first\n")
            code = connect(url, "--json", *SHORT)

    found = events(capfd.readouterr().out)
    assert [event["event"] for event in found] == [
        *("connect", "open", "close", "retry", "connect", "open", "message", "close", "end")
    ]
    assert (found[2]["code"], found[2]["reason"]) == (1012, "restart")
    assert found[3]["attempt"] == 2
    assert found[6]["text"] == "second"
    # No pong had come for the first, and a close that the peer began proves nothing.
    assert (found[2]["unconfirmed"], code) in {(1, 1), (0, 0)}


def test_what_may_be_lost_is_told_by_the_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(without_pongs_at_first) as url, typed(b"hello\n"):
        assert connect(url, *SHORT) == 1

    output, errors = capfd.readouterr()
    assert output == ""
    assert "without proof that they arrived: 1 message\n" in errors
    assert "not known to have arrived: 1 message\n" in errors


def test_what_may_be_lost_can_be_sent_again(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(without_pongs_at_first) as url, typed(b"hello\n"):
        assert connect(url, "--resend", "unconfirmed", *SHORT) == 0

    assert capfd.readouterr().out == "hello\n"


async def without_pongs_at_first(peer: Peer, number: int) -> None:
    await peer.accept()
    peer.answer_pings = number > 1
    if number == 1:
        await peer.receive()
        peer.reset()
    await peer.serve_echo()


def test_a_peer_that_never_pongs_proves_it_by_its_close(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def echo_without_pongs(peer: Peer, _number: int) -> None:
        peer.answer_pings = False
        await echo(peer, 1)

    monkeypatch.setattr(_connect, "_PROOF_TIMEOUT", 0.2)
    with serving(echo_without_pongs) as url, typed(b"hello\n"):
        assert connect(url, "--linger", "1") == 0

    assert capfd.readouterr().out == "hello\n"


def test_once_ends_with_the_connection(capfd: pytest.CaptureFixture[str]) -> None:
    async def close(peer: Peer, _number: int) -> None:
        await peer.accept()
        await peer.close(1000, "bye")

    with serving(close) as url, typed():
        assert connect(url, "--once") == 0

    assert "closed with code 1000, reason 'bye'\nended\n" in capfd.readouterr().err


def test_once_and_lost_is_1(capfd: pytest.CaptureFixture[str]) -> None:
    async def reset(peer: Peer, _number: int) -> None:
        await peer.accept()
        peer.reset()

    with serving(reset) as url, typed():
        assert connect(url, "--once") == 1

    assert capfd.readouterr().err.endswith("gave up\n")


@pytest.mark.parametrize("option", [(), ("--once",), ("--json",)])
def test_no_for_good_is_1(option: Sequence[str], capfd: pytest.CaptureFixture[str]) -> None:
    async def refuse(peer: Peer, _number: int) -> None:
        await peer.reject(403)

    with serving(refuse) as url, typed(b"hello\n"):
        assert connect(url, *option) == 1

    output, errors = capfd.readouterr()
    assert "HTTP 403" in output + errors
    assert "not known to have arrived: 1 message\n" in errors


def test_a_dead_peer_is_found_by_the_heartbeat(capfd: pytest.CaptureFixture[str]) -> None:
    async def be_silent(peer: Peer, _number: int) -> None:
        await peer.accept()
        await peer.run_silent()

    with serving(be_silent) as url, typed():
        assert connect(url, "--once", "--heartbeat", "0.2") == 1

    assert "the peer did not answer the heartbeat within 0.2 seconds" in capfd.readouterr().err


# --- signals ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_and_tells_which(number: int, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    goodbyes: list[int | None] = []

    async def ask_to_end(peer: Peer, _number: int) -> None:
        await peer.accept()
        interrupt(number)
        try:
            await peer.receive()
        except PeerClosed as goodbye:
            goodbyes.append(goodbye.code)

    with serving(ask_to_end) as url, typed():
        assert connect(url) == code

    assert goodbyes == [1000]
    assert capfd.readouterr().err.endswith("closed with code 1000\nended\n")


def test_a_signal_does_not_wait_for_a_peer_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def be_dead(peer: Peer, _number: int) -> None:
        await peer.accept()
        interrupt()
        await trio.sleep_forever()

    monkeypatch.setattr(_connect, "_STOP_TIMEOUT", 0.1)
    with serving(be_dead) as url, typed():
        assert connect(url) == 130


def test_a_second_signal_ends_it_now(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def be_dead(peer: Peer, _number: int) -> None:
        await peer.accept()
        interrupt()
        await trio.sleep(0.2)
        interrupt()
        await trio.sleep_forever()

    monkeypatch.setattr(_connect, "_STOP_TIMEOUT", 1000.0)
    with serving(be_dead) as url, typed():
        assert connect(url) == 130


# --- output that goes nowhere, or slowly ---


def test_a_reader_that_has_gone_is_141(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with serving() as url, typed(b"hello\n"), replaced(1, theirs):
        assert connect(url, *SHORT) == 141
    os.close(theirs)


def test_a_reader_that_does_not_read_holds_back_the_peer_and_is_no_reason_not_to_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody reads the pipe: it holds 64 KiB, the inbox 16 MiB, and the network some."""
    sent = 0

    async def flood(peer: Peer, _number: int) -> None:
        nonlocal sent
        await peer.accept()
        while True:
            with trio.move_on_after(1.0) as patience:
                await peer.send("x" * 2**20)
                sent += 1
            if patience.cancelled_caught:
                interrupt()
                await trio.sleep_forever()

    is_over = threading.Event()

    def write_and_tell(descriptor: int, data: bytes) -> None:
        try:
            write_all(descriptor, data)
        finally:
            if descriptor == 1:
                is_over.set()

    monkeypatch.setattr(_pipes, "write_all", write_and_tell)
    ours, theirs = os.pipe()
    with serving(flood) as url, typed(), replaced(1, theirs):
        os.close(theirs)
        assert connect(url) == 130
        # The thread that still writes ends with its reader; or it would write to what comes next in its place.
        os.close(ours)
        assert is_over.wait(LIMIT)
    assert 0 < sent < 64


def test_logs_do_not_write_between_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[list[logging.Handler]] = []
    logger = logging.getLogger("trio_wsprim")
    before = list(logger.handlers)

    async def look(peer: Peer, _number: int) -> None:
        seen.append(list(logger.handlers))
        await echo(peer, 1)

    with serving(look) as url, typed(b""):
        assert connect(url, *SHORT) == 0

    assert any(isinstance(handler, logging.NullHandler) for handler in seen[0])
    assert logger.handlers == before


# --- TLS ---


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an authority, of a server, of a client, and one that holds nothing."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("localhost", "tom@example.test"):
        leaf, stem = authority.issue_cert(name), name.partition("@")[0]
        leaf.private_key_and_cert_chain_pem.write_to_path(folder / f"{stem}.pem")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{stem}.crt")
        leaf.private_key_pem.write_to_path(folder / f"{stem}.key")
    (folder / "empty").write_text("nothing")
    return folder


def server_side(files: Path, *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "localhost.pem")
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files / "ca.pem")
    return context


def test_an_authority_of_ones_own_is_trusted(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(tls=server_side(files)) as url, typed(b"hello\n"):
        assert connect(url, "--ca", str(files / "ca.pem"), *SHORT) == 0

    assert capfd.readouterr().out == "hello\n"


def test_an_authority_that_nobody_knows_is_not(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(tls=server_side(files)) as url, typed(b"hello\n"):
        assert connect(url) == 1

    assert "CERTIFICATE_VERIFY_FAILED" in capfd.readouterr().err


@pytest.mark.parametrize("shown", [("--cert", "tom.pem"), ("--cert", "tom.crt", "--key", "tom.key")])
def test_a_certificate_of_ones_own_is_shown(
    files: Path, shown: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    options = [each if each.startswith("--") else str(files / each) for each in ("--ca", "ca.pem", *shown)]
    with serving(tls=server_side(files, wants_client=True)) as url, typed(b"hello\n"):
        assert connect(url, *options, *SHORT) == 0

    assert capfd.readouterr().out == "hello\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ca", "missing"), "--ca: {}/missing: No such file or directory"),
        (("--ca", "empty"), "--ca: {}/empty: holds no such PEM"),
        (("--cert", "empty"), "--cert: {}/empty: holds no such PEM"),
        (("--cert", "tom.crt", "--key", "missing"), "--cert and --key: {0}/tom.crt, {0}/missing: No such file"),
    ],
)
def test_a_file_that_will_not_do_is_2(
    files: Path, options: Sequence[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [each if each.startswith("--") else str(files / each) for each in options]

    assert main(["connect", *paths, "wss://localhost/"]) == 2

    assert words.format(files) in capfd.readouterr().err


# --- the conversation on a screen of ours ---


class Recorder:
    """A screen that a person looks at."""

    is_watched = True

    def __init__(self) -> None:
        self.intake: Intake = LineSplitter()
        self.shown: list[Event] = []
        self.states: list[str] = []
        self.latencies: list[float] = []
        self.sent: list[str] = []
        self.notes: list[str] = []

    async def show(self, events: Sequence[Event]) -> None:
        self.shown += events
        await trio.lowlevel.checkpoint()

    async def tell(self, text: str) -> None:
        self.notes.append(text)
        await trio.lowlevel.checkpoint()

    async def show_latency(self, latency: float) -> None:
        self.latencies.append(latency)
        await trio.lowlevel.checkpoint()

    def show_typing(self) -> None:
        pass

    def show_sent(self, line: str) -> None:
        self.sent.append(line)

    def show_status(self, text: str) -> None:
        self.states.append(text)

    def close(self) -> None:
        pass


def test_who_looks_on_is_told_how_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Recorder()
    monkeypatch.setattr(_connect, "choose_screen", lambda **_: screen)
    monkeypatch.setattr(_connect, "_STATUS_INTERVAL", 0.01)
    monkeypatch.setattr(_connect, "_LATENCY_INTERVAL", 0.01)
    with serving(without_pongs_at_first) as url, typed(b"hello\n"):
        assert connect(url, "--resend", "unconfirmed", "--linger", "1") == 0

    assert screen.sent == ["hello"]
    assert len(screen.latencies) > 1
    assert screen.states[0].startswith("CONNECTING  attempt 1")
    assert any(text.startswith("CLOSED  attempt 2  next dial in 0.") for text in screen.states)
    assert any(text.startswith("OPEN  attempt 2  latency ") for text in screen.states)


def test_the_input_may_end_by_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Recorder()
    screen.intake = LineEditor()
    monkeypatch.setattr(_connect, "choose_screen", lambda **_: screen)
    with serving() as url, typed() as keys:
        os.write(keys, b"hello\n\x04")
        assert connect(url, *SHORT) == 0

    assert screen.sent == ["hello"]


async def test_events_are_taken_together_but_not_without_bounds() -> None:
    sender, receiver = trio.open_memory_channel[Event](1000)
    with sender, receiver:
        for _ in range(300):
            sender.send_nowait(DropEvent("a", "full"))
        assert [len(await _connect._take(receiver)) for _ in range(2)] == [256, 44]
        sender.close()
        assert await _connect._take(receiver) == []


def test_events_of_other_kinds_change_nothing_that_is_noted() -> None:
    conversation = _connect.Conversation(ConnectOrder(url="ws://example.test/"), Recorder(), Stop())

    conversation._note(DropEvent("a", "full"))
    conversation._note(CloseEvent(1006, "", clean=False, error=ConnectionClosed(1006)))

    assert not conversation._has_failed
