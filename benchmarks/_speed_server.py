"""The server of the comparison, seen from Python: it is compiled at the start of a run, and ends with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

import trio
import trustme

from benchmarks._speed_lines import LineReader
from benchmarks._speed_words import Target

_SOURCE: Final = Path(__file__).with_suffix(".c")
# Seconds; the machine may be busy, or slow.
_PATIENCE: Final = 60.0
# How often it looks for work in vain before it sleeps: for some milliseconds.
_LOOKS: Final = 10_000


class CannotBuild(Exception):
    """The server cannot be compiled here; the message tells what is missing."""


def build(folder: Path) -> Path:
    """Compile the server into a folder.

    Raises:
        CannotBuild: If there is no compiler, or no OpenSSL to compile with.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotBuild("the server is a C program, and there is no `cc`; on Debian: apt-get install gcc libc6-dev")
    program = folder / "speed_server"
    command = [compiler, "-O2", "-o", str(program), str(_SOURCE), "-lssl", "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        hint = "; on Debian: apt-get install libssl-dev" if "openssl" in done.stderr or "-lssl" in done.stderr else ""
        raise CannotBuild(f"the server cannot be compiled{hint}\n{done.stderr}")
    return program


class Server:
    """A running server.

    Attributes:
        plain: Where it is without TLS.
        tls: Where it is with TLS.
    """

    def __init__(self, pid: int, ports: dict[str, int], authority: Path) -> None:
        self.pid = pid
        self.plain = Target(ports["plain"], ports["raw"])
        self.tls = Target(ports["tls"], ports["raw_tls"], str(authority))

    async def be(self, *, awake: bool) -> float:
        """Have it stay awake from now on when it has nothing to do, or sleep; it does for some milliseconds.

        Returns:
            The seconds for which it has been at work so far, not counting those in which it looked for some.
        """
        async with await trio.open_tcp_stream(self.plain.host, self.plain.port) as stream:
            await stream.send_all(b"GET /looks/%d HTTP/1.1\r\n\r\n" % (_LOOKS if awake else 0))
            answer = b"".join([part async for part in stream])
        return int(answer.rpartition(b"\r\n")[2]) / 1e9


@asynccontextmanager
async def running_server(program: Path, folder: Path) -> AsyncGenerator[Server]:
    """Run a server that was built, for the time of a block.

    Args:
        program: From `build`.
        folder: Where its certificate can be written.
    """
    certificate, key, authority = _make_certificate(folder)
    run = partial(trio.run_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    async with trio.open_nursery() as nursery:
        process = cast("trio.Process", await nursery.start(run, [str(program), str(certificate), str(key)]))
        assert process.stdin is not None
        assert process.stdout is not None
        # Its input ends with the block, and so does it.
        async with process.stdin, process.stdout:
            with trio.fail_after(_PATIENCE):
                ports = json.loads(await LineReader(process.stdout).read_line())
            yield Server(process.pid, ports, authority)


def _make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Write a certificate, its key, and what signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, signer = folder / "certificate.pem", folder / "key.pem", folder / "authority.pem"
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(certificate, append=number > 0)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(signer)
    return certificate, key, signer
