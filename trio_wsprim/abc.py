"""The seams: what a transport gives, and what `setup` gets.

A transport of your own implements `Transport` and `Link`; one for servers implements `ServerTransport`.
"""

from trio_wsprim._options import Session
from trio_wsprim._seam import (
    Ending,
    Incoming,
    Link,
    Outgoing,
    Ping,
    Pong,
    Reception,
    Refused,
    ServerTransport,
    Transport,
    Upgrade,
)

__all__ = [
    "Ending",
    "Incoming",
    "Link",
    "Outgoing",
    "Ping",
    "Pong",
    "Reception",
    "Refused",
    "ServerTransport",
    "Session",
    "Transport",
    "Upgrade",
]
