"""A server in a thread of its own, standard input from a pipe, and a program on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import signal
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import trio

from trio_wsprim.testing import Peer, PeerClosed, peer_over

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PROGRAM: Final = (sys.executable, "-m", "trio_wsprim")
# For a machine that is busy; what is tested takes a second at most.
LIMIT: Final = 60.0

_CONTROL_CODE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Ctrl-C is a signal only on the terminal that controls a session.
_ON_TERMINAL: Final = """\
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
{prelude}
from trio_wsprim.__main__ import main
sys.exit(main())
"""


Script: TypeAlias = Callable[[Peer, int], Awaitable[object]]


async def echo(peer: Peer, _number: int) -> None:
    await peer.accept()
    await peer.serve_echo()


@contextmanager
def serving(script: Script = echo, tls: ssl.SSLContext | None = None) -> Generator[str]:
    """Have a script serve each connection, in a thread, since a command runs trio in ours; give the url.

    The script gets the peer, and the connection's number from 1.
    """
    started: Future[tuple[int, trio.lowlevel.TrioToken, trio.CancelScope]] = Future()
    numbers = itertools.count(1)
    faults: list[Exception] = []

    async def serve_one(stream: trio.abc.Stream) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True)
        # A client that goes away is no fault of the script's.
        with suppress(PeerClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                await script(peer_over(stream), next(numbers))
            except (AssertionError, AttributeError, TypeError, ValueError) as error:
                faults.append(error)
                interrupt()  # who waits for the script waits in vain

    async def serve() -> None:
        with trio.CancelScope() as scope:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port: int = listener.socket.getsockname()[1]
            started.set_result((port, trio.lowlevel.current_trio_token(), scope))
            await trio.serve_listeners(serve_one, [listener])

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    port, token, scope = started.result(LIMIT)
    try:
        host = "127.0.0.1" if tls is None else "localhost"
        yield f"{'ws' if tls is None else 'wss'}://{host}:{port}/"
    finally:
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
        thread.join(LIMIT)
    assert not faults, faults


@contextmanager
def replaced(descriptor: int, by: int) -> Generator[None]:
    """Put another file in a descriptor's place for a while."""
    before = os.dup(descriptor)
    os.dup2(by, descriptor)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


@contextmanager
def typed(data: bytes | None = None) -> Generator[int]:
    """Have standard input be a pipe, with some bytes in it and then the end; with `None`, the other end is yours."""
    ours, theirs = os.pipe()
    try:
        if data is not None:
            os.write(theirs, data)
            os.close(theirs)
        with replaced(0, ours):
            yield theirs
    finally:
        os.close(ours)
        if data is None:
            os.close(theirs)


def end(descriptor: int) -> None:
    """End what goes through a descriptor that somebody else will close."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def interrupt(number: int = signal.SIGINT) -> None:
    """Send this process a signal, from whichever thread."""
    os.kill(os.getpid(), number)


class Terminal:
    """A program on a pseudo-terminal of its own.

    Args:
        arguments: Of our program.
        prelude: Python that runs before it.
        stdin: Another standard input.
        stdout: Another standard output.
    """

    def __init__(self, *arguments: str, prelude: str = "", stdin: int | None = None, stdout: int | None = None) -> None:
        self.descriptor, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            (
                sys.executable,
                "-c",
                _ON_TERMINAL.format(prelude=prelude).replace("ioctl(0", f"ioctl({0 if stdin is None else 2}"),
                *arguments,
            ),
            stdin=theirs if stdin is None else stdin,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        # Kept open, so that its modes can be read after the program's end.
        self._theirs = theirs
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self.descriptor)

    @property
    def text(self) -> str:
        """What it has written, without control codes."""
        return _CONTROL_CODE.sub("", self.output)

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def wait_for(self, words: str) -> None:
        """Read until some words have come."""
        deadline = time.monotonic() + LIMIT
        while words not in self.text:
            assert time.monotonic() < deadline, f"no {words!r} in {self.text!r}"
            self._read(0.5)

    def _read(self, patience: float) -> bool:
        if not select.select([self.descriptor], [], [], patience)[0]:
            return False
        self.output += os.read(self.descriptor, 65536).decode(errors="replace")
        return True

    def end(self) -> int:
        """Wait for its end, and give its exit code."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.text!r}"
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    @property
    def is_restored(self) -> bool:
        """Whether its modes are what they were."""
        return termios.tcgetattr(self._theirs) == self.modes


@contextmanager
def started(*arguments: str, **streams: Any) -> Generator[subprocess.Popen[bytes]]:
    """Run our program with pipes, and end it after the block if it has not."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    with subprocess.Popen((*PROGRAM, *arguments), cwd=ROOT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server_program(*arguments: str) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """Run `serve` on a free port; give the process and its url."""
    with started("serve", *arguments, "--port", "0") as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
