"""WebSockets for trio that stay up: buffered, owned by a nursery, reconnecting, with a heartbeat."""

from trio_wsprim._backoff import Backoff
from trio_wsprim._errors import (
    BufferFull,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRejected,
    HeartbeatTimeout,
    MessageTooBig,
    RetriesExhausted,
    UndeliveredError,
    WebSocketError,
)
from trio_wsprim._heartbeat import make_heartbeat_ws
from trio_wsprim._make import (
    create_event_signal,
    create_reconnecting_ws,
    create_ws,
    create_ws_state,
    make_reconnecting_ws,
    make_ws,
)
from trio_wsprim._options import Options, ReconnectingOptions
from trio_wsprim._request import Rejection, Request
from trio_wsprim._server import Server, create_ws_server, serve_ws
from trio_wsprim._server_options import ServerOptions
from trio_wsprim._signal import Signal
from trio_wsprim._values import (
    Buffer,
    CloseEvent,
    ConnectEvent,
    DropEvent,
    EndEvent,
    ErrorEvent,
    Event,
    MessageEvent,
    OpenEvent,
    ReadyState,
    RetryEvent,
    Statistics,
    Undelivered,
)
from trio_wsprim._websocket import ReconnectingWebSocket, ServerWebSocket, WebSocket
from trio_wsprim.transports import TrioWebsocketTransport, WebsocketsTransport

__all__ = [
    "Backoff",
    "Buffer",
    "BufferFull",
    "CloseEvent",
    "ConnectEvent",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionRejected",
    "DropEvent",
    "EndEvent",
    "ErrorEvent",
    "Event",
    "HeartbeatTimeout",
    "MessageEvent",
    "MessageTooBig",
    "OpenEvent",
    "Options",
    "ReadyState",
    "ReconnectingOptions",
    "ReconnectingWebSocket",
    "Rejection",
    "Request",
    "RetriesExhausted",
    "RetryEvent",
    "Server",
    "ServerOptions",
    "ServerWebSocket",
    "Signal",
    "Statistics",
    "TrioWebsocketTransport",
    "Undelivered",
    "UndeliveredError",
    "WebSocket",
    "WebSocketError",
    "WebsocketsTransport",
    "create_event_signal",
    "create_reconnecting_ws",
    "create_ws",
    "create_ws_server",
    "create_ws_state",
    "make_heartbeat_ws",
    "make_reconnecting_ws",
    "make_ws",
    "serve_ws",
]
