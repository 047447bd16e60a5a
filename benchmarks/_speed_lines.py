"""Lines from a process."""

from __future__ import annotations

import trio


class LineReader:
    """Reads a stream line by line.

    Args:
        stream: Of bytes of UTF-8.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = bytearray()

    async def read_line(self) -> str:
        """Wait for a line.

        Raises:
            EOFError: If the process ended before it.
        """
        while b"\n" not in self._rest:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError("the process ended; its standard error tells why")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()
