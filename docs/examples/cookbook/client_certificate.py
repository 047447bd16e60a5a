"""A certificate of our own, for servers that ask who we are, and an authority of theirs."""

import ssl

import trio

from trio_wsprim import create_ws


async def main(
    url: str = "wss://localhost:5000", certificate: str = "client.pem", authority: str | None = None
) -> None:
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate)
    async with create_ws(url, ssl_context=context) as ws:
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
