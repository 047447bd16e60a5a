"""Programs for both sides of a socket: options, and steps with a pause after each. `worlds.py` plays them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias

from hypothesis import strategies as st

from trio_wsprim import Buffer
from trio_wsprim._values import WHEN_FULL

Deed: TypeAlias = tuple[object, ...]
# Seconds, or: not even a turn for anybody else; one turn; until nobody has anything left to do.
Pause: TypeAlias = float | Literal["at once", "a turn", "settled"]
Step: TypeAlias = tuple[Deed, Pause]

# What a heartbeat says, where it is no ping frame.
BEAT: Final = "beat"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What both sides do.

    Attributes:
        resend: `None` for a socket that never dials again.
        pipe: How many bytes each direction of a connection holds unread.
        setup: What a new connection begins with: nothing, a message, or a message and its answer.
        subscribes: Whether a slow subscriber keeps a copy of everything that comes in.
        end: How the block is left.
        chance: Which of those tasks that can run runs first, through the whole program.
    """

    resend: Literal["unsent", "unconfirmed"] | None
    steps: list[Step]
    end: Literal["leave", "raise", "cancel", "aclose", "aclose cancelled", "nobody there", "told off"] = "leave"
    track: bool = False
    outbox: Buffer = field(default_factory=partial(Buffer, 4))
    inbox: Buffer | None = field(default_factory=partial(Buffer, 3))
    pipe: int = 65536
    setup: Literal["says", "asks"] | None = None
    subscribes: bool = False
    retries: int | None = None
    min_uptime: float = 1.0
    chance: int = 0

    @property
    def tracks(self) -> bool:
        return self.track or self.resend == "unconfirmed"


# ------------------------------------------------------------------------------------------------ what there is to do

# Beside ordinary sizes some that do not fit into a connection's pipe, so that kills cut them short.
sizes = st.sampled_from([4, 4, 30, 150, 400])
few = st.integers(1, 3)
deeds: st.SearchStrategy[Deed] = st.one_of(
    st.tuples(st.just("send"), sizes, st.sampled_from([None, None, 0, 0.05, 1.0])),
    st.tuples(st.just("send"), sizes, st.none()),
    st.tuples(st.just("burst"), few, sizes),
    st.sampled_from([("receive",), ("receive many",), ("take",), ("receive",), ("cancel",), ("cancel",)]),
    st.sampled_from([("flush", False), ("flush", True), ("ping",)]),
    st.tuples(st.just("peer sends"), few, sizes),
    st.tuples(st.just("peer sends"), few, sizes),
    st.sampled_from([("freeze", True), ("freeze", False), ("mute", True), ("mute", False)]),
    st.tuples(st.just("kill"), st.sampled_from(["reset", "drop", "half-close"])),
    st.tuples(st.just("peer closes"), st.sampled_from([None, 1000, 1001, 1009, 1011, 1012, 4000]), st.booleans()),
    st.tuples(st.just("peer breaks"), st.sampled_from(["opcode", "mask", "UTF-8", "size"])),
    st.tuples(st.just("dials fail"), st.sampled_from(["refuse", "stall", "delay"]), few),
    st.tuples(st.just("handshake fails"), st.sampled_from(["503", "503", "404", "garbage", "silence", "hangs up"])),
    st.tuples(st.just("setup fails"), st.sampled_from(["raises", "hangs"])),
    st.tuples(st.just("heartbeat"), st.sampled_from([None, BEAT, "function"]), st.sampled_from([0.3, 2.0])),
    st.sampled_from([("reconnect",), ("reconnect",), ("reconnect",), ("close", 1000), ("close", 3000)]),
)
pauses: st.SearchStrategy[Pause] = st.sampled_from(["at once", "a turn", "settled", "settled", 0.01, 0.1, 0.5, 2.0])
steps = st.tuples(deeds, pauses)
buffers = st.builds(
    Buffer,
    max_messages=st.sampled_from([1, 2, 4, 1024]),
    max_bytes=st.sampled_from([400, 1000, 2**20]),
    when_full=st.sampled_from(WHEN_FULL),
)
inboxes = st.builds(
    Buffer,
    max_messages=st.sampled_from([1, 3, 1024]),
    max_bytes=st.sampled_from([1000, 2**20]),
    when_full=st.sampled_from(["wait", "wait", "drop_oldest", "drop_newest"]),
)
# Hypothesis alone would make most lists far shorter than the longest.
lists = st.sampled_from([0, 0, 10, 30]).flatmap(lambda least: st.lists(steps, min_size=least, max_size=50))
programs = st.builds(
    Program,
    resend=st.sampled_from([None, "unsent", "unconfirmed", "unsent"]),
    steps=lists,
    end=st.sampled_from(["leave", "raise", "cancel", "aclose", "aclose cancelled", "nobody there", "told off"]),
    track=st.booleans(),
    outbox=buffers,
    inbox=st.none() | inboxes | inboxes | inboxes,
    pipe=st.sampled_from([65536, 64, 300]),
    setup=st.sampled_from([None, None, "says", "asks"]),
    subscribes=st.booleans(),
    retries=st.sampled_from([None, None, 4]),
    min_uptime=st.sampled_from([1.0, 0.0]),
    chance=st.integers(0, 2**16),
)
