"""What can be asked for on the command line. Only `argparse` and rules: whatever an order needs is imported later.

Nothing here repeats a value that may be secret: a shell's history has it already, but a log need not.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeAlias, TypeVar, get_args

from trio_wsprim._urls import check_headers, check_subprotocols, parse_url

T = TypeVar("T")
Resend: TypeAlias = Literal["unsent", "unconfirmed"]
Mode: TypeAlias = Literal["echo", "chat", "broadcast"]

# The demo's own, which is not imported for this alone.
MAX_DEMO_SPEED: Final = 5.0
_COMMANDS: Final = ("connect", "serve", "demo")
# The name of an option, without the value that may be written right behind it.
_OPTION: Final = re.compile("--[A-Za-z-]+|-[A-Za-z]")
_DEFAULT_LINGER: Final = 1.0
_DEFAULT_PORT: Final = 8765

_EXAMPLES: Final = """\
examples:
  {prog} serve  # an echo server on ws://127.0.0.1:8765/
  {prog} connect ws://127.0.0.1:8765/  # type lines to it
  {prog} COMMAND --help  # all about a command
"""

_CONNECT: Final = """\
Sends each line that it reads from standard input as a text message, and prints each message that arrives as a line.
Dials again when the connection ends, until the server refuses for good; what is typed meanwhile is kept.

On a terminal, with `rich` installed (the extra `cli`), the last lines show state, attempt, next dial and latency, and
what you type: Backspace, Ctrl-U and Ctrl-W delete, Ctrl-D ends. In a pipe, standard output has the messages and nothing
else; notes go to standard error.

At the end of the input it waits until a pong proves that all has arrived, waits for answers as long as --linger says,
and closes.
"""
_CONNECT_EXAMPLES: Final = """\
examples:
  {prog} connect wss://example.com/chat
  echo hello | {prog} connect --once wss://example.com/echo
  {prog} connect --json --linger inf wss://example.com/feed < /dev/null | jq .text  # a feed
  {prog} connect --header 'Authorization: Bearer …' --subprotocol chat wss://example.com/
  {prog} connect --heartbeat 20 --resend unconfirmed wss://example.com/  # lose nothing
  {prog} connect --ca authority.pem --cert me.pem --key me.key wss://intern.example/

exit codes:
  0    the input ended and all has arrived; or, with --once, the server closed normally
  1    no connection came about for good, it ended otherwise, or something may not have arrived
  2    the command line was wrong
  130  Ctrl-C; 143 SIGTERM; 141 nobody reads the output any more
"""

_SERVE: Final = """\
Listens, and prints its url as the first line of standard output. Notes on who comes and goes are on standard error.

modes:
  echo       each client gets back what it sends (the default)
  chat       each client gets what the others send, with their names
  broadcast  each line of standard input goes to all clients; the end of the input ends the server
"""
_SERVE_EXAMPLES: Final = """\
examples:
  {prog} serve
  {prog} serve chat --host 0.0.0.0 --port 9000 --heartbeat 20
  tail -f log | {prog} serve broadcast
  {prog} serve --cert me.pem --key me.key
  {prog} serve --origin https://example.com --origin http://localhost:3000

exit codes:
  0    the input of `broadcast` ended, and no client missed a line
  1    it could not listen, or a client was too slow for `broadcast`
  2    the command line was wrong
  130  Ctrl-C; 143 SIGTERM: both close all connections with 1001, and wait 2 s for them at most
"""

_DEMO: Final = """\
Starts an echo server on loopback, opens a reconnecting socket with a heartbeat to it, and sends numbered messages.
Then the server resets the connection, falls silent, goes down for a while, and answers 503 with Retry-After. Ends by
itself after some 12 seconds, with a table of what was noticed, healed and lost; exits with 1 if a check failed.

Usually what was handed to the network is not sent again, so nothing comes twice; what may be lost is told. With
`--resend unconfirmed`, it is sent again until a pong proves that it arrived: nothing is lost, and some may come twice.
"""
_DEMO_EXAMPLES: Final = """\
examples:
  {prog} demo  # colour and a live line, if the terminal and `rich` are there
  {prog} demo --plain  # plain lines
  {prog} demo --seed 7  # the same waits each time
  {prog} demo --resend unconfirmed  # lose nothing: what is not proved to have arrived is sent again
  {prog} demo | tee log  # plain lines too: a pipe gets no control codes
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOrder:
    """`connect`. Its repr leaves out what may hold secrets.

    Attributes:
        heartbeat: Seconds of silence before a ping, and again until the peer counts as dead; `None` for none.
        linger: Seconds to wait for answers after the input's end.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    subprotocols: tuple[str, ...] = field(default=(), repr=False)
    heartbeat: float | None = None
    json: bool = False
    plain: bool = False
    once: bool = False
    resend: Resend = "unsent"
    linger: float = _DEFAULT_LINGER
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOrder:
    """`serve`."""

    mode: Mode = "echo"
    host: str = "127.0.0.1"
    port: int = 0
    heartbeat: float | None = None
    origins: tuple[str, ...] = ()
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOrder:
    """`demo`; the seed is `None` where another one is to be drawn each time."""

    plain: bool = False
    seed: int | None = None
    speed: float = 1.0
    resend: Resend = "unsent"


Order: TypeAlias = ConnectOrder | ServeOrder | DemoOrder


def read_arguments(arguments: Sequence[str] | None) -> Order:
    """Read a command line.

    Args:
        arguments: `None` for those of the process.

    Raises:
        SystemExit: With 2 if it is wrong, with 0 after help.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if given and not given[0].startswith("-") and given[0] not in _COMMANDS:
        # Before argparse, which would repeat it: it may be a url.
        parser.error(f"the first argument must be one of {', '.join(_COMMANDS)}")
    found, rest = parser.parse_known_args(given)
    if rest:
        _refuse(parser, found.command, rest)
    match found.command:
        case "connect":
            return _read_connect(parser, found)
        case "serve":
            return _read_serve(parser, found)
        case _:
            return DemoOrder(plain=found.plain, seed=found.seed, speed=found.speed, resend=found.resend)


def complain(text: str) -> None:
    """Say on standard error what is wrong with the command line, or with what it names."""
    sys.stderr.write(f"{_program()}: error: {text}\n")


def _refuse(parser: argparse.ArgumentParser, command: str, rest: Sequence[str]) -> NoReturn:
    """Refuse what nobody knows, by the names of the options alone: the rest may be urls and headers."""
    names = [found.group() for each in rest if (found := _OPTION.match(each))]
    what = f"it does not know {', '.join(names)}" if names else f"it takes {len(rest)} arguments fewer"
    parser.error(f"{command}: {what} (see --help)")


def _program() -> str:
    """Tell how we were called, for examples that can be copied."""
    name = Path(sys.argv[0]).stem
    return name if name == "trio-wsprim" else "python -m trio_wsprim"


# ------------------------------------------------------------------------------------ the commands


def _read_connect(parser: argparse.ArgumentParser, found: argparse.Namespace) -> ConnectOrder:
    if found.once and found.resend is not None:
        parser.error("connect: --resend is for connections that are dialled again, and --once says not to")
    if found.key is not None and found.cert is None:
        parser.error("connect: --key needs --cert")
    if (found.ca or found.cert) and not parse_url(found.url).secure:
        parser.error("connect: --ca, --cert and --key are for wss: urls")
    try:
        subprotocols = check_subprotocols(found.subprotocol)
    except ValueError as error:
        parser.error(f"connect: {error}")
    return ConnectOrder(
        url=found.url,
        headers=tuple(found.header),
        subprotocols=subprotocols,
        heartbeat=found.heartbeat,
        json=found.json,
        plain=found.plain,
        once=found.once,
        resend=found.resend or "unsent",
        linger=found.linger,
        ca=found.ca,
        cert=found.cert,
        key=found.key,
    )


def _read_serve(parser: argparse.ArgumentParser, found: argparse.Namespace) -> ServeOrder:
    if found.key is not None and found.cert is None:
        parser.error("serve: --key needs --cert")
    if "*" in found.origin and len(found.origin) > 1:
        parser.error("serve: --origin '*' allows all; leave out the others")
    return ServeOrder(
        mode=found.mode,
        host=found.host,
        port=found.port,
        heartbeat=found.heartbeat,
        origins=tuple(found.origin),
        cert=found.cert,
        key=found.key,
    )


# ------------------------------------------------------------------------------------ the parsers


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all the rest here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it, and exit."""
        from importlib.metadata import version

        sys.stdout.write(f"trio-wsprim {version('trio-wsprim')}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    program = _program()
    parser = argparse.ArgumentParser(
        prog=program,
        description="WebSockets for trio that stay up.",
        epilog=(_EXAMPLES + _DEMO_EXAMPLES.removeprefix("examples:\n")).format(prog=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=examples.format(prog=program),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    _add_connect(add("connect", "type lines to a server, and see its messages", _CONNECT, _CONNECT_EXAMPLES))
    _add_serve(add("serve", "run a server: echo, chat or broadcast", _SERVE, _SERVE_EXAMPLES))
    _add_demo(
        add("demo", "show a socket that survives four kinds of faults, in some 12 seconds", _DEMO, _DEMO_EXAMPLES)
    )
    return parser


def _add_connect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        metavar="URL",
        type=_told(_url),
        help="ws://… or wss://…; a user and password in it, and its query, are never printed",
    )
    parser.add_argument(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        type=_told(_header),
        action="append",
        default=[],
        help="a further header of the request; may be given several times; its value is never printed",
    )
    parser.add_argument(
        "--subprotocol",
        metavar="NAME",
        action="append",
        default=[],
        help="a subprotocol to offer, the most wanted first; may be given several times",
    )
    _add_heartbeat(parser, "dial again")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON, for scripts")
    parser.add_argument("--plain", action="store_true", help="plain lines, whatever the terminal can do")
    parser.add_argument("--once", action="store_true", help="do not dial again: end with the connection")
    parser.add_argument(
        "--resend",
        choices=get_args(Resend),
        help="what goes out again on the next connection: what was not handed to the network (the default, so nothing "
        "comes twice), or also what is not proved to have arrived (so nothing is lost)",
    )
    parser.add_argument(
        "--linger",
        metavar="SECONDS",
        type=_told(_linger),
        default=_DEFAULT_LINGER,
        help="how long to wait for answers after the end of the input; inf for as long as it lasts "
        f"(default: {_DEFAULT_LINGER:g})",
    )
    parser.add_argument("--ca", metavar="FILE", help="trust the authorities in this PEM file, instead of the system's")
    parser.add_argument("--cert", metavar="FILE", help="show this certificate (PEM, with its chain) to the server")
    parser.add_argument("--key", metavar="FILE", help="its private key, if that is not in the same file")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mode", metavar="MODE", nargs="?", type=_told(_mode), default="echo", help="see above")
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=_told(_port),
        default=_DEFAULT_PORT,
        help=f"TCP port; 0 for one that is free (default: {_DEFAULT_PORT})",
    )
    _add_heartbeat(parser, "end the connection")
    parser.add_argument(
        "--origin",
        metavar="ORIGIN",
        type=_told(_origin),
        action="append",
        default=[],
        help="whose web pages may connect, such as https://example.com, or '*' for all; may be given several times "
        "(default: those from our own host and port; programs always may)",
    )
    parser.add_argument("--cert", metavar="FILE", help="speak TLS, with this certificate (PEM, with its chain)")
    parser.add_argument("--key", metavar="FILE", help="its private key, if that is not in the same file")


def _add_heartbeat(parser: argparse.ArgumentParser, then: str) -> None:
    parser.add_argument(
        "--heartbeat",
        metavar="SECONDS",
        type=_told(_seconds),
        help=f"after so long a silence, send a ping; after as long again, {then}",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain", action="store_true", help="plain lines, without colour and live line")
    parser.add_argument("--seed", type=int, help="draw the waits from this seed (default: another one each time)")
    parser.add_argument(
        "--resend",
        choices=get_args(Resend),
        default="unsent",
        help="what goes out again on the next connection: what was not handed to the network (the default), "
        "or also what is not proved to have arrived",
    )
    parser.add_argument(
        "--speed",
        type=_told(_speed),
        default=1.0,
        metavar="X",
        help=f"go X times as fast, 0.9 to {MAX_DEMO_SPEED:g} (default: 1); Retry-After stays whole seconds",
    )


# ------------------------------------------------------------------------------------ the values


def _told(read: Callable[[str], T]) -> Callable[[str], T]:
    """Have argparse say what a reader says: of a `ValueError` it would show the value instead."""

    def read_or_tell(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_or_tell


def _url(text: str) -> str:
    parse_url(text)
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("must be like 'Name: value', got no colon")
    return check_headers([(name, value)])[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        raise ValueError(f"must be a number of seconds, more than 0, got {text!r}")
    return seconds


def _linger(text: str) -> float:
    seconds = _number(text)
    if not seconds >= 0:
        raise ValueError(f"must be a number of seconds, 0 or more, or inf, got {text!r}")
    return seconds


def _speed(text: str) -> float:
    speed = _number(text)
    if not 0.9 <= speed <= MAX_DEMO_SPEED:
        raise ValueError(f"must be from 0.9 to {MAX_DEMO_SPEED:g}, got {text!r}")
    return speed


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ValueError(f"must be a port from 0 to 65535, got {text!r}")
    return int(text)


def _mode(text: str) -> str:
    # Not by `choices`, whose complaint repeats what may be a url.
    if text not in get_args(Mode):
        raise ValueError(f"must be one of {', '.join(get_args(Mode))}")
    return text


def _origin(text: str) -> str:
    if text not in {"*", "null"} and ("://" not in text or text.endswith("/")):
        raise ValueError(f"must be like 'https://example.com', without a slash at its end, or '*', got {text!r}")
    return text
