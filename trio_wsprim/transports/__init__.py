"""Adapters: what speaks WebSocket for us. No other room names the libraries underneath."""

from trio_wsprim.transports._trio_websocket import TrioWebsocketTransport
from trio_wsprim.transports._websockets import WebsocketsTransport, is_available

__all__ = ["TrioWebsocketTransport", "WebsocketsTransport", "default_transport"]


def default_transport() -> WebsocketsTransport | TrioWebsocketTransport:
    """Choose the faster one where what it needs is installed."""
    return WebsocketsTransport() if is_available() else TrioWebsocketTransport()
