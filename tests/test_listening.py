"""A listener goes on whatever happens, and is closed in the end; addresses are found where there are any."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.tls import server_context
from trio_wsprim._listening import accept_forever, find_place, find_remote
from trio_wsprim._throttle import ThrottledLog

CONTEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@final
class ScriptedListener(trio.abc.Listener[trio.abc.Stream]):
    """Each accept gives or raises what comes next; after the last, it waits for ever."""

    def __init__(self, *script: BaseException | trio.abc.Stream) -> None:
        self._script = list(script)
        self.times: list[float] = []
        self.is_closed = False

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if not self._script:
            await trio.sleep_forever()
        step = self._script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


def full() -> OSError:
    return OSError(errno.EMFILE, "Too many open files")


def a_stream() -> trio.abc.Stream:
    return memory_stream_pair()[0]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> ThrottledLog:
    caplog.set_level(logging.INFO, "test.listening")
    return ThrottledLog(logging.getLogger("test.listening"))


async def accepted(listener: ScriptedListener, log: ThrottledLog) -> list[trio.abc.Stream]:
    """Accept for a minute of virtual time."""
    streams: list[trio.abc.Stream] = []

    async def take(stream: trio.abc.Stream) -> None:
        await trio.lowlevel.checkpoint()
        streams.append(stream)

    with trio.move_on_after(60):
        await accept_forever(listener, take, log)
    return streams


# --- accepting ---


async def test_each_stream_is_taken(log: ThrottledLog, autojump_clock: MockClock) -> None:
    streams = [a_stream() for _ in range(3)]
    assert await accepted(ScriptedListener(*streams), log) == streams


async def test_an_accept_that_fails_is_tried_again_after_longer_and_longer_waits(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    stream = a_stream()
    listener = ScriptedListener(*[full() for _ in range(7)], stream)
    assert await accepted(listener, log) == [stream]
    waits = [after - before for before, after in zip(listener.times, listener.times[1:], strict=False)]
    assert waits[:7] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1, 1])
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.messages[0] == ("cannot accept connections: [Errno 24] Too many open files; trying again in 0.05 s")


async def test_waits_begin_anew_after_a_success(log: ThrottledLog, autojump_clock: MockClock) -> None:
    listener = ScriptedListener(full(), full(), full(), a_stream(), full(), a_stream())
    assert len(await accepted(listener, log)) == 2
    assert listener.times[4:] == pytest.approx([0.35, 0.4, 0.4])


async def test_an_error_that_lasts_costs_neither_the_processor_nor_the_log(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    listener = ScriptedListener(*[full() for _ in range(1000)])
    await accepted(listener, log)
    assert len(listener.times) < 70
    assert len(caplog.records) < 70


async def test_clients_that_have_gone_again_make_nobody_wait(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    gone = [ConnectionAbortedError(errno.ECONNABORTED, "gone") for _ in range(100)]
    listener = ScriptedListener(*gone, a_stream())
    assert len(await accepted(listener, log)) == 1
    assert set(listener.times) == {0}
    assert not caplog.records


async def test_a_listener_that_is_closed_ends_it(log: ThrottledLog, autojump_clock: MockClock) -> None:
    listener = ScriptedListener(a_stream(), trio.ClosedResourceError())
    assert len(await accepted(listener, log)) == 1
    assert trio.current_time() == 0
    assert listener.is_closed


@pytest.mark.parametrize("script", [(), (full(), full()), (full(),) * 100])
async def test_a_cancellation_closes_the_listener(
    script: tuple[OSError, ...], log: ThrottledLog, autojump_clock: MockClock
) -> None:
    listener = ScriptedListener(*script)
    await accepted(listener, log)
    assert trio.current_time() == 60
    assert listener.is_closed


async def test_a_bug_comes_out_and_closes_the_listener(log: ThrottledLog, autojump_clock: MockClock) -> None:
    listener = ScriptedListener(a_stream())

    async def take(_: trio.abc.Stream) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await accept_forever(listener, take, log)
    assert listener.is_closed


async def test_a_socket_is_listened_on_until_it_is_closed(log: ThrottledLog) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    taken = trio.Event()

    async def take(stream: trio.abc.Stream) -> None:
        await stream.aclose()
        taken.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, take, log)
            async with await trio.open_tcp_stream(*listener.socket.getsockname()[:2]):
                await taken.wait()
            await listener.aclose()
    assert listener.socket.fileno() == -1


async def test_without_file_descriptors_it_waits_and_then_goes_on(
    log: ThrottledLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernel's own error, but without exhausting the process that runs the other tests."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    accept, failures = listener.socket.accept, [full(), full()]

    async def fail_twice() -> tuple[trio.socket.SocketType, object]:
        if failures:
            raise failures.pop()
        return await accept()

    monkeypatch.setattr(listener.socket, "accept", fail_twice)
    taken = trio.Event()

    async def take(stream: trio.abc.Stream) -> None:
        await stream.aclose()
        taken.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, listener, take, log)
            async with await trio.open_tcp_stream(*listener.socket.getsockname()[:2]):
                await taken.wait()
            nursery.cancel_scope.cancel()
    assert len(caplog.records) == 2


# --- where it listens ---


async def open_listener(host: str) -> trio.SocketListener:
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    return listener


async def open_ipv6() -> trio.SocketListener:
    try:
        return await open_listener("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")


async def open_unix(path: Path) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    return trio.SocketListener(sock)


def port_of(listener: trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port


def over_tls(listener: trio.SocketListener) -> trio.SSLListener[trio.SocketStream]:
    return trio.SSLListener(listener, server_context())


@pytest.mark.parametrize("wrap", [lambda each: each, over_tls, lambda each: trio.SSLListener(over_tls(each), CONTEXT)])
@pytest.mark.parametrize(("host", "told"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
async def test_a_listener_over_tcp_has_a_place(
    host: str, told: str, wrap: Callable[[trio.SocketListener], object]
) -> None:
    async with await open_listener(host) as listener:
        assert find_place([wrap(listener)]) == (told, port_of(listener))


async def test_a_listener_over_ipv6_has_one_too() -> None:
    async with await open_ipv6() as listener:
        assert find_place([listener]) == ("::1", port_of(listener))
    async with await open_listener("::") as listener:
        assert find_place([listener]) == ("::1", port_of(listener))


async def test_of_several_listeners_the_first_that_has_a_place_is_told(tmp_path: Path) -> None:
    async with (
        await open_unix(tmp_path / "socket") as unix,
        await open_listener("127.0.0.1") as first,
        await open_listener("127.0.0.1") as second,
    ):
        assert find_place([ScriptedListener(), unix]) is None
        assert find_place([]) is None
        assert find_place([unix, ScriptedListener(), first, second]) == ("127.0.0.1", port_of(first))


# --- who comes ---


async def ends_over(listener: trio.SocketListener) -> tuple[trio.SocketStream, trio.SocketStream]:
    sock = trio.socket.socket(listener.socket.family)
    await sock.connect(listener.socket.getsockname())
    return trio.SocketStream(sock), await listener.accept()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_over_tcp_has_an_address(host: str) -> None:
    async with await (open_ipv6() if host == "::1" else open_listener(host)) as listener:
        client, stream = await ends_over(listener)
        async with client, stream:
            address = client.socket.getsockname()[:2]
            assert find_remote(stream) == address
            assert address[0] == host
            over_tls = trio.SSLStream(stream, CONTEXT, server_side=True)
            assert find_remote(over_tls) == address
            assert find_remote(trio.SSLStream(over_tls, CONTEXT, server_side=True)) == address


async def test_a_client_that_has_gone_has_none() -> None:
    async with await open_listener("127.0.0.1") as listener:
        client, stream = await ends_over(listener)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
        assert find_remote(stream) is None
        await stream.aclose()
        assert find_remote(stream) is None


async def test_a_client_over_a_unix_socket_or_memory_has_none(tmp_path: Path) -> None:
    async with await open_unix(tmp_path / "socket") as listener:
        client, stream = await ends_over(listener)
        async with client, stream:
            assert find_remote(stream) is None
    assert find_remote(a_stream()) is None
