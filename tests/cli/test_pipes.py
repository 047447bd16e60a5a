"""Standard input and output that never block the run, and leave no trace."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cli.tools import LIMIT, replaced
from trio_wsprim._cli._pipes import Sink, ThreadSource, WatchedSource, fill_standard_descriptors, open_source, write_all


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    for descriptor in (ours, theirs):
        with suppress(OSError):
            os.close(descriptor)


def is_non_blocking(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK)


async def test_a_pipe_is_watched_and_its_flags_stay_what_they_were(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    source = open_source(ours)
    assert isinstance(source, WatchedSource)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_later, theirs)
            assert await source.read() == b"hello"
        assert not is_non_blocking(ours)
        os.close(theirs)
        assert await source.read() == b""
    await source.aclose()
    os.fstat(ours)


async def write_later(descriptor: int) -> None:
    await wait_all_tasks_blocked()
    os.write(descriptor, b"hello")


async def test_a_pipe_whose_writer_has_gone_is_at_its_end(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    os.write(theirs, b"last")
    os.close(theirs)
    source = open_source(ours)

    with trio.fail_after(LIMIT):
        assert await source.read() == b"last"
        assert await source.read() == b""
    await source.aclose()


async def test_a_terminal_is_watched_until_it_goes() -> None:
    ours, theirs = pty.openpty()
    source = open_source(theirs)
    assert isinstance(source, WatchedSource)

    with trio.fail_after(LIMIT):
        os.write(ours, b"hello\n")
        assert await source.read() == b"hello\n"
        assert not is_non_blocking(theirs)
        os.close(ours)
        assert await source.read() == b""
    await source.aclose()
    os.close(theirs)


@pytest.mark.parametrize("missing", ["the path", "the function"])
async def test_what_cannot_be_opened_once_more_is_read_by_a_thread(
    missing: str, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pipe

    def fail(*_: object) -> int:
        raise OSError("no such thing here") if missing == "the path" else AttributeError("ttyname")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        source = open_source(ours)
    assert isinstance(source, ThreadSource)

    os.write(theirs, b"hello")
    with trio.fail_after(LIMIT):
        assert await source.read() == b"hello"
        os.close(theirs)
        assert await source.read() == b""
    await source.aclose()


async def test_what_fails_while_it_is_watched_is_at_the_end(tmp_path: Path) -> None:
    source = WatchedSource(os.open(tmp_path, os.O_RDONLY))  # reading a folder is an error of its own

    with trio.fail_after(LIMIT):
        assert await source.read() == b""
    await source.aclose()


async def test_files_and_sockets_are_read_by_a_thread(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    one, other = socket.socketpair()
    with (tmp_path / "file").open("rb") as file, one, other:
        for descriptor in (file.fileno(), one.fileno()):
            assert isinstance(open_source(descriptor), ThreadSource)


async def test_a_thread_that_cannot_read_is_at_the_end(pipe: tuple[int, int]) -> None:
    _, theirs = pipe  # which is for writing

    with trio.fail_after(LIMIT):
        assert await ThreadSource(theirs).read() == b""


async def test_a_read_by_a_thread_can_be_cancelled(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe

    with trio.fail_after(LIMIT):
        with trio.move_on_after(0.05) as scope:
            await ThreadSource(ours).read()
    assert scope.cancelled_caught
    os.write(theirs, b"end")  # so that the thread ends


async def test_what_is_written_comes_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """A pipe holds 64 KiB, so both writes wait, while others run."""
    ours, theirs = pipe
    sink, size = Sink(), 300_000

    async def write(letter: str) -> None:
        await sink.write(theirs, letter * size)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a")
            await wait_all_tasks_blocked(0.01)
            nursery.start_soon(write, "b")
            data = b""
            while len(data) < 2 * size:
                data += await trio.to_thread.run_sync(os.read, ours, 65536)
    assert data == b"a" * size + b"b" * size


async def test_nobody_to_read_is_a_broken_pipe(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    os.close(ours)

    with pytest.raises(BrokenPipeError):
        await Sink().write(theirs, "hello")


def test_a_write_goes_on_where_the_last_one_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = b""

    def write_some(_descriptor: int, data: bytes) -> int:
        nonlocal written
        written += data[:2]
        return len(data[:2])

    monkeypatch.setattr(os, "write", write_some)
    write_all(1, b"hello")

    assert written == b"hello"


def test_closed_standard_descriptors_become_the_null_device(pipe: tuple[int, int]) -> None:
    ours, _ = pipe
    with replaced(0, ours):
        os.close(0)

        fill_standard_descriptors()

        assert os.fstat(0).st_rdev == Path(os.devnull).stat().st_rdev
    fill_standard_descriptors()  # which has nothing to do
