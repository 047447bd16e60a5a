"""A server for `wss:` urls."""

import ssl

import trio

from trio_wsprim import ServerWebSocket, serve_ws


async def echo(ws: ServerWebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main(certificate: str = "cert.pem", key: str = "key.pem", port: int = 5000) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    await serve_ws(echo, None, port, ssl_context=context)  # on all addresses of this machine


if __name__ == "__main__":
    trio.run(main)
