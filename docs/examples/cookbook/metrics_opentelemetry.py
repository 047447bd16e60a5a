"""`statistics()` for OpenTelemetry: observable instruments, read when the exporter asks."""

from collections.abc import Callable, Iterable

import trio
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from trio_wsprim import WebSocket, create_reconnecting_ws


def observe(ws: WebSocket, name: str, field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> Iterable[Observation]:
        value = getattr(ws.statistics(), field)
        return [] if value is None else [Observation(value, {"socket": name})]

    return read


def export(ws: WebSocket, name: str) -> None:
    meter = metrics.get_meter("trio_wsprim")
    for field in ("messages_sent", "messages_received", "messages_dropped", "connections"):
        meter.create_observable_counter(f"websocket.{field}", [observe(ws, name, field)])
    for field, unit in (("messages_buffered", "1"), ("latency", "s")):
        meter.create_observable_gauge(f"websocket.{field}", [observe(ws, name, field)], unit=unit)


async def main(url: str = "ws://localhost:5000") -> None:
    async with create_reconnecting_ws(url) as ws:
        export(ws, "feed")  # to the provider that your program has set
        await ws.send("counted")
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main)
