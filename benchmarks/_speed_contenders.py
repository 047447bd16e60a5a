"""The contenders: who they are, what they need, and what they take part in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Final

from benchmarks._speed_client import Client
from benchmarks._speed_runtimes import make_runtime
from benchmarks._speed_words import RuntimeName, Scenario

_BYTES: Final = ("rtt", "pipe", "big")
_MESSAGES: Final = ("rtt", "pipe", "burst", "flood", "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One client in one configuration.

    Attributes:
        name: Of it, on the command line and in the results.
        title: What people call it.
        make: The class, as `module:class`, imported only where it runs.
        arguments: For the class, besides the runtime.
        kinds: Of scenarios that it takes part in.
        has_tls: Whether it takes part over TLS, too.
        imports: What a program that uses it imports, beyond trio or asyncio; `None` for another's configuration.
        is_ours: Whether we wrote it.
    """

    name: str
    title: str
    make: str
    arguments: tuple[object, ...] = ()
    runtime: RuntimeName = "trio"
    kinds: tuple[str, ...] = _MESSAGES
    has_tls: bool = True
    imports: str | None = None
    is_ours: bool = False

    def plays(self, scenario: Scenario) -> bool:
        """Tell whether it takes part in a scenario."""
        if scenario.kind == "import":
            return self.imports is not None
        return scenario.kind in self.kinds and (self.has_tls or not scenario.is_tls)

    def client(self) -> Client:
        """Make it, in the process in which it runs.

        Raises:
            ImportError: If a package that it needs is not installed.
        """
        module, name = self.make.split(":")
        kind: Callable[..., Client] = getattr(import_module(f"benchmarks.{module}"), name)
        return kind(make_runtime(self.runtime), *self.arguments)


def _ours(transport: str) -> Sequence[Contender]:
    """Give our contenders on one transport."""
    entry: Callable[..., Contender] = partial(Contender, is_ours=True)
    module, name = "_speed_contenders_ours", f"ours-{transport}"
    title = f"trio_wsprim on {transport}"
    return (
        entry(
            name=name,
            title=title,
            make=f"{module}:Ours",
            arguments=(transport,),
            kinds=(*_MESSAGES, "idle", "storm"),
            imports="trio_wsprim",
        ),
        entry(
            name=f"{name}-many",
            title=f"{title}, receive_many",
            make=f"{module}:OursMany",
            arguments=(transport,),
            kinds=("flood",),
        ),
        entry(
            name=f"{name}-wide",
            title=f"{title}, wide outbox",
            make=f"{module}:OursWide",
            arguments=(transport,),
            has_tls=False,
        ),
        entry(
            name=f"{name}-loaded",
            title=f"{title}, all on",
            make=f"{module}:OursLoaded",
            arguments=(transport,),
            has_tls=False,
        ),
    )


def _on_both_loops(make: str, name: str, title: str, imports: str, crowds: tuple[str, ...]) -> Sequence[Contender]:
    """Give a contender on asyncio's own loop and on uvloop; to keep a run short, TLS and crowds are for the latter."""
    uvloop, title_there, kinds = f"{name}-uvloop", f"{title} + uvloop", (*_MESSAGES, *crowds)
    return (
        Contender(name=name, title=title, make=make, runtime="asyncio", imports=imports, has_tls=False),
        Contender(name=uvloop, title=title_there, make=make, runtime="uvloop", kinds=kinds),
    )


_TRIO: Final = "_speed_contenders_trio"
_ASYNCIO: Final = "_speed_contenders_asyncio"
# What trio-websocket offers for speed; its defaults are one message and 4 KiB.
_TUNED: Final[dict[str, Any]] = {"message_queue_size": 1024, "receive_buffer_size": 64 * 1024}

CONTENDERS: Final[Sequence[Contender]] = (
    *_ours("websockets"),
    *_ours("trio-websocket"),
    Contender(name="raw-trio", title="raw trio TCP", make=f"{_TRIO}:RawTrio", kinds=_BYTES),
    Contender(
        name="trio-websocket",
        title="trio-websocket",
        make=f"{_TRIO}:TrioWebsocket",
        kinds=(*_MESSAGES, "idle"),
        imports="trio_websocket",
    ),
    Contender(
        name="trio-websocket-tuned",
        title="trio-websocket, tuned",
        make=f"{_TRIO}:TrioWebsocket",
        arguments=(_TUNED,),
        has_tls=False,
    ),
    Contender(
        name="websockets-trio",
        title="websockets, trio",
        make=f"{_TRIO}:WebsocketsTrio",
        kinds=(*_MESSAGES, "idle", "storm"),
        imports="websockets.trio.client",
    ),
    *_on_both_loops(
        f"{_ASYNCIO}:WebsocketsAsyncio",
        *("websockets-asyncio", "websockets, asyncio", "websockets.asyncio.client"),
        ("idle", "storm"),
    ),
    *_on_both_loops(f"{_ASYNCIO}:Aiohttp", *("aiohttp", "aiohttp", "aiohttp"), ("idle",)),
    *_on_both_loops("_speed_contenders_picows:Picows", *("picows", "picows", "picows"), ("idle",)),
    Contender(
        name="httpx-ws",
        title="httpx-ws",
        make=f"{_TRIO}:HttpxWs",
        kinds=(*_MESSAGES, "idle"),
        imports="httpx_ws",
    ),
)


def pick_contenders(names: Iterable[str]) -> Sequence[Contender]:
    """Give the contenders of these names; all for no name.

    Raises:
        ValueError: If a name is none.
    """
    by_name = {each.name: each for each in CONTENDERS}
    wanted = list(names) or list(by_name)
    for name in wanted:
        if name not in by_name:
            raise ValueError(f"no contender is called {name!r}; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
