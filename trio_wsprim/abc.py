"""The seams: what a transport gives, and what `setup` gets.

A transport of your own implements `Transport` and `Link`.
"""

from trio_wsprim._options import Session
from trio_wsprim._seam import Ending, Incoming, Link, Outgoing, Ping, Pong, Transport, Upgrade

__all__ = [
    "Ending",
    "Incoming",
    "Link",
    "Outgoing",
    "Ping",
    "Pong",
    "Session",
    "Transport",
    "Upgrade",
]
