"""`statistics()` for Prometheus: read when Prometheus asks, so that it costs nothing in between."""

from collections.abc import Iterator

import prometheus_client
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trio_wsprim import WebSocket, create_reconnecting_ws

COUNTERS = (
    "messages_sent",
    "bytes_sent",
    "messages_received",
    "bytes_received",
    "messages_dropped",
    "attempts",
    "connections",
)
GAUGES = ("messages_buffered", "bytes_buffered", "messages_unconfirmed", "uptime", "latency")


class SocketCollector(Collector):
    def __init__(self, name: str, ws: WebSocket) -> None:
        self._name = name
        self._ws = ws

    def collect(self) -> Iterator[Metric]:
        statistics = self._ws.statistics()
        for field in COUNTERS:
            counter = CounterMetricFamily(f"websocket_{field}", field.replace("_", " "), labels=["socket"])
            counter.add_metric([self._name], getattr(statistics, field))
            yield counter
        for field in GAUGES:
            value = getattr(statistics, field)
            if value is not None:  # no connection, or no ping answered yet
                gauge = GaugeMetricFamily(f"websocket_{field}", field.replace("_", " "), labels=["socket"])
                gauge.add_metric([self._name], value)
                yield gauge


async def main(url: str = "ws://localhost:5000") -> None:
    registry = prometheus_client.CollectorRegistry()  # in a program: the global one, and `start_http_server(9000)`
    async with create_reconnecting_ws(url) as ws:
        registry.register(SocketCollector("feed", ws))
        await ws.send("counted")
        await ws.receive()
        print(registry.get_sample_value("websocket_messages_sent_total", {"socket": "feed"}))


if __name__ == "__main__":
    trio.run(main)
