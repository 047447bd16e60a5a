import signal
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

import trio_wsprim
from tests import sockets
from trio_wsprim.abc import Transport

# The workers of pytest-xdist ignore it, and so does whatever a shell starts in the background; then programs that tests
# start would, too, and one that a test interrupts would never know.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The machines that run this are shared and noisy, so how long an example took says nothing: no
# deadline, no complaint about slow generation. Derandomized, a red run is red for everybody.
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

# What `transport=None` may come to, each of which every test that opens a socket runs on.
TRANSPORTS: Final[dict[str, Callable[[], Transport]]] = {
    "websockets": trio_wsprim.WebsocketsTransport,
    "trio-websocket": trio_wsprim.TrioWebsocketTransport,
}
OPENERS: Final = (
    trio_wsprim.create_ws,
    trio_wsprim.make_ws,
    trio_wsprim.create_reconnecting_ws,
    trio_wsprim.make_reconnecting_ws,
    trio_wsprim.create_ws_server,
    trio_wsprim.serve_ws,
    sockets.opened,
    sockets.reopening,
)
# The first two open nothing; the others name the transport themselves.
SPARED: Final = {
    "tests.test_options",
    "tests.typing.test_interface",
    "tests.test_transports",
    "tests.transports.test_websockets",
    "tests.live.test_compression",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the modules that know an opener once on each transport."""
    if opens_sockets(metafunc.module):
        metafunc.parametrize("_default_transport", TRANSPORTS, indirect=True, scope="module")


def opens_sockets(module: ModuleType) -> bool:
    return module.__name__ not in SPARED and any(value in OPENERS for value in vars(module).values() if callable(value))


# Of a module's scope, since hypothesis wants fixtures that serve all its examples.
@pytest.fixture(scope="module", autouse=True)
def _default_transport(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let `transport=None` take the transport whose turn it is, in modules that run on both."""
    name: str | None = getattr(request, "param", None)
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            patch.setattr("trio_wsprim._attempt.default_transport", TRANSPORTS[name])
            patch.setattr("trio_wsprim._server.default_transport", TRANSPORTS[name])
        yield
