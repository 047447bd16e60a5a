"""The transport over the sans-I/O core of `websockets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

import trio

from trio_wsprim._seam import Link, Reception, Upgrade
from trio_wsprim._values import check_choice
from trio_wsprim.transports._handshake import accept_link, open_link

if TYPE_CHECKING:
    from trio_wsprim.transports._websockets_core import WebsocketsCore

# 15 is the first whose sans-I/O layer is what it is today: `max_size` in bytes of what is decompressed, too, and
# parsing that neither raises nor logs what a peer has sent.
_OLDEST: Final = 15


@final
@dataclass(frozen=True, slots=True)
class WebsocketsTransport:
    """WebSocket by the sans-I/O core of `websockets`, from the extra `fast`.

    Plain data frames and close frames pass it by, in a lane of our own; the rest of the protocol is its own.

    Args:
        compression: `"deflate"` to ask for compressed messages (RFC 7692), which saves bytes on the network and costs
            time and memory here; `None` for none.

    Raises:
        ImportError: If `websockets` is not installed, or is too old.
        ValueError: If `compression` is another word.
    """

    compression: Literal["deflate"] | None = None

    def __post_init__(self) -> None:
        if self.compression is not None:
            check_choice("compression", self.compression, ("deflate",))
        if not is_available():
            raise ImportError(f"WebsocketsTransport needs websockets {_OLDEST} or newer: install trio-wsprim[fast]")

    async def connect(self, nursery: trio.Nursery, stream: trio.abc.Stream, upgrade: Upgrade) -> Link:
        """See `trio_wsprim.abc.Transport`."""
        return await open_link(nursery, stream, upgrade, self._make_core)

    async def accept(self, nursery: trio.Nursery, stream: trio.abc.Stream, reception: Reception) -> Link:
        """See `trio_wsprim.abc.ServerTransport`."""
        return await accept_link(nursery, stream, reception, self._make_core)

    def _make_core(self, queue: Callable[[bytes], None]) -> WebsocketsCore:
        # Imported here, since the extra may be missing, and since it takes some 30 ms.
        from trio_wsprim.transports._websockets_core import WebsocketsCore

        return WebsocketsCore(queue, compresses=self.compression is not None)


def is_available() -> bool:
    """Whether a `websockets` is installed that will do."""
    try:
        from websockets.version import version
    except ImportError:
        return False
    return int(version.partition(".")[0]) >= _OLDEST
