"""A Redis of our own, on a port of our own, started by the command that `docs/scaling.md` tells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, final

from tests.peers import MissingPeer, _go_without, _run

PAGE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "scaling.md"
_PROGRAM: Final = "redis-server"
# Seconds for it to be there, on a busy machine.
_PATIENCE: Final = 30.0


def need_redis() -> None:
    """Skip the test where there is no Redis."""
    if shutil.which(_PROGRAM) is None:
        _go_without("Redis")


def install_redis() -> None:
    """Install it, as Debian packages it.

    Raises:
        MissingPeer: If that cannot be done here.
    """
    if shutil.which(_PROGRAM) is not None:
        return
    if shutil.which("apt-get") is None:
        raise MissingPeer("there is no apt-get here: install Redis in this system's own way")
    if os.geteuid() != 0:
        raise MissingPeer(f"this needs root: apt-get install {_PROGRAM}")
    _run("apt-get", "update", "-qq")
    _run(
        *("apt-get", "install", "-qq", "-y", "--no-install-recommends", _PROGRAM),
        DEBIAN_FRONTEND="noninteractive",
    )


def documented(program: str, **options: object) -> list[str]:
    """Give the command that the page tells for a program, with other values for some of its options."""
    found = re.search(rf"^(?:\S*/)?{re.escape(program)}\b.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{PAGE.name} has no command for {program}"
    words = shlex.split(found[0])
    for name, value in options.items():
        words[words.index(f"--{name}") + 1] = str(value)
    return words


@final
class Redis:
    """A Redis that can be gone for a while.

    Args:
        port: Where it is when it is there.
        folder: Where it may leave something behind, though it should not.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [*documented(_PROGRAM, port=self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "Redis has ended"
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it without a word, if it is there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
