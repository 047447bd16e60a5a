"""The Autobahn TestSuite itself: an environment of CPython 2.7, all that it runs on, with the suite in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

import trio

# The last that still makes environments of Python 2.7.
_VIRTUALENV: Final = "virtualenv==20.21.1"
# The suite's own pins, but for its extra `accelerate`, which would have to be compiled, and for what it never imports.
# So pip is told to follow no dependencies.
_PACKAGES: Final = (
    "autobahntestsuite==25.10.1",
    *("autobahn==0.10.9", "Twisted==19.10.0", "txaio==2.1.0", "zope.interface==4.6.0", "six==1.16.0"),
    *("attrs==19.3.0", "constantly==15.1.0", "hyperlink==19.0.0", "idna==2.8", "incremental==16.10.1"),
    *("Jinja2==2.11.3", "MarkupSafe==1.1.1", "pyOpenSSL==19.1.0", "cryptography==3.3.2", "cffi==1.15.1"),
    *("pycparser==2.21", "enum34==1.1.10", "ipaddress==1.0.23", "service-identity==18.1.0", "pyasn1==0.4.8"),
    *("pyasn1-modules==0.2.8", "unittest2==1.1.0", "traceback2==1.4.0", "linecache2==1.0.0"),
)
# Seconds that the suite waits for the end of a connection, in place of one: we may share a busy machine.
_SERVER_OPTIONS: Final = {"closeHandshakeTimeout": 5}
_CLIENT_OPTIONS: Final = {"closeHandshakeTimeout": 5, "serverConnectionDropTimeout": 5}
# In the suite's Python: which cases match some patterns.
_LIST_CASES: Final = """
import json, sys
from autobahntestsuite import case, caseset
cases = caseset.CaseSet(
    case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
print json.dumps(cases.parseSpecCases({"cases": sys.argv[1:], "exclude-cases": []}))
"""
_LOOPBACK: Final = "127.0.0.1"
# Seconds for the fuzzing server to listen, of which it is asked every now and then.
_PATIENCE: Final = 30.0
_LOOK_INTERVAL: Final = 0.05


class NoSuiteError(Exception):
    """The suite cannot be had on this machine. The message says why."""


def find_python27(wanted: str | None = None) -> Path:
    """Give a Python 2.7 that runs: the one that is wanted, one on PATH, or one of pyenv's.

    Raises:
        NoSuiteError: There is none.
    """
    if wanted is not None:
        candidates = [Path(wanted)]
    else:
        on_path = shutil.which("python2.7")
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        candidates = [Path(on_path)] if on_path else []
        candidates += sorted(root.glob("versions/2.7*/bin/python2.7"))
    for candidate in candidates:
        if _is_python27(candidate):
            return candidate
    looked = ", ".join(map(str, candidates)) or "PATH and pyenv's versions"
    raise NoSuiteError(f"no Python 2.7 is to be had, on which the Autobahn TestSuite runs; looked at {looked}")


def _is_python27(candidate: Path) -> bool:
    # pyenv puts a stub on PATH that fails unless a version 2.7 is chosen. So ask.
    try:
        asked = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return (asked.stdout + asked.stderr).startswith("Python 2.7")  # it tells it on standard error


class Suite:
    """An installed suite.

    Args:
        folder: Of its environment; made by `install`.
    """

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "python27" / "bin"

    async def list_cases(self, patterns: Sequence[str]) -> Sequence[str]:
        """Give the ids of the cases that match, such as `"1.*"`, in the suite's own order."""
        command = [str(self._bin / "python"), "-c", _LIST_CASES, *patterns]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, env=_environment())
        return cast("Sequence[str]", json.loads(done.stdout))

    async def fuzz_server(self, agent: str, url: str, cases: Iterable[str], reports: Path) -> None:
        """Run cases against a server, and wait for the reports.

        Args:
            agent: The name under which to report.
            url: The server's.
            cases: Their ids.
            reports: The folder for the reports. Several runs may share it.
        """
        servers = [{"agent": agent, "url": url}]
        await self._wstest(
            "fuzzingclient", _spec_file(reports, cases, {"servers": servers, "options": _CLIENT_OPTIONS})
        )

    @asynccontextmanager
    async def fuzzing_server(self, cases: Iterable[str], reports: Path) -> AsyncGenerator[str]:
        """Serve cases to clients for the time of a block; give the url."""
        port = _free_port()
        url = f"ws://{_LOOPBACK}:{port}"
        spec = _spec_file(reports, cases, {"url": url, "options": _SERVER_OPTIONS})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wstest, "fuzzingserver", spec)
            await _wait_listening(port)
            yield url
            nursery.cancel_scope.cancel()

    async def _wstest(self, mode: str, spec: Path) -> None:
        # Port 0 switches off its web pages, which would want a port of their own.
        command = [str(self._bin / "wstest"), "--mode", mode, "--spec", str(spec), "--webport", "0"]
        log = spec.with_suffix(".log")
        with log.open("wb") as output:
            run = partial(trio.run_process, stdout=output, stderr=subprocess.STDOUT, check=False, env=_environment())
            done = await run(command)
        if done.returncode:
            raise RuntimeError(f"the suite ended with {done.returncode}, and said last: {log.read_text()[-2000:]}")


def install(folder: Path, python27: Path) -> Suite:
    """Set the suite up in a folder, unless it is there already.

    Raises:
        NoSuiteError: It cannot be installed.
    """
    environment = folder / "python27"
    if not (environment / "bin" / "wstest").exists():
        # Ours may be newer than any virtualenv that still knows Python 2.7, but that one runs on it.
        maker = folder / "maker"
        _do("make an environment", sys.executable, "-m", "venv", maker)
        _do("install virtualenv", maker / "bin" / "pip", *_PIP_INSTALL, _VIRTUALENV)
        _do("make one of Python 2.7", maker / "bin" / "virtualenv", "--quiet", "--python", python27, environment)
        _do("install the suite", environment / "bin" / "pip", *_PIP_INSTALL, "--no-deps", *_PACKAGES)
    return Suite(folder)


_PIP_INSTALL: Final = ("install", "--quiet", "--disable-pip-version-check")


def _do(purpose: str, *command: str | Path) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode:
        raise NoSuiteError(f"could not {purpose}:\n{done.stdout}{done.stderr}")


def _environment() -> dict[str, str]:
    """Give our environment without what is meant for our own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _spec_file(reports: Path, cases: Iterable[str], more: dict[str, object]) -> Path:
    """Write what to do beside the reports, under a name of its own."""
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / f"spec-{len(list(reports.glob('spec-*.json')))}.json"
    spec = {"outdir": str(reports), "cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}}
    path.write_text(json.dumps({**spec, **more}))
    return path


def _free_port() -> int:
    """Give a port that nobody has; the suite cannot be told to take any and say which."""
    with socket.create_server((_LOOPBACK, 0)) as listener:
        return cast("int", listener.getsockname()[1])


async def _wait_listening(port: int) -> None:
    with trio.fail_after(_PATIENCE):
        while True:
            try:
                stream = await trio.open_tcp_stream(_LOOPBACK, port)
            except OSError:
                await trio.sleep(_LOOK_INTERVAL)
            else:
                await stream.aclose()
                return
