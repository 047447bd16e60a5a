"""An echo server to try the other examples against: start it in a terminal of its own."""

import trio

from trio_wsprim.testing import peer_over


async def echo(stream: trio.SocketStream) -> None:
    await peer_over(stream).serve_echo()


async def main(port: int = 5000) -> None:
    print(f"echoing on ws://localhost:{port}; Ctrl-C ends it")
    await trio.serve_tcp(echo, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
