"""Install the peers that tests are run against."""

import sys
from typing import Final

from tests.peers import MissingPeer, install_chromium, install_ws
from tests.peers.redis import install_redis

PEERS: Final = {"Chromium": install_chromium, "Node's ws": install_ws, "Redis": install_redis}


def main() -> int:
    for name, install in PEERS.items():
        try:
            install()
        except MissingPeer as error:
            # No failure: a machine on which one of them cannot be had still runs all the other tests.
            print(f"{name}: not here, so its tests will be skipped; {error}")
        else:
            print(f"{name}: here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
