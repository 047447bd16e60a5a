"""Adapters: what speaks WebSocket for us. No other room names the libraries underneath."""

from trio_wsprim.transports._trio_websocket import TrioWebsocketTransport

__all__ = ["TrioWebsocketTransport"]
