"""The pytest plugin, seen by projects that use it: with pytest-trio, with anyio's plugin, and by those that do not."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

import trio_wsprim
from trio_wsprim import _attempt, _server
from trio_wsprim.testing import MemoryTransport
from trio_wsprim.testing._pinning import pinned_transport

pytest_plugins = ["pytester"]

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "docs" / "examples" / "testing"

TESTS: Final = """
    from trio_wsprim import Server, create_ws
    from trio_wsprim.testing import MemoryNetwork

    {mark}
    async def test_the_server_echoes(ws_server: Server) -> None:
        async with create_ws(ws_server.url) as ws:
            await ws.send("hello")
            await ws.send(b"again")
            assert await ws.receive() == "hello"
            assert await ws.receive() == b"again"
            assert len(ws_server.connections) == 1

    {mark}
    async def test_the_network_is_scripted(ws_network: MemoryNetwork) -> None:
        with ws_network.replacing_tcp():
            async with create_ws("wss://example.test/") as ws:
                peer = await ws_network.accept()
                await peer.accept()
                await peer.send("hello")
                assert await ws.receive() == "hello"
                await peer.close()
        assert len(ws_network.dials) == 1
"""
ANYIO: Final = """
    import pytest

    @pytest.fixture
    def anyio_backend():
        return "trio"
"""


def with_trio(pytester: pytest.Pytester, tests: str = TESTS) -> None:
    pytester.makeini("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    pytester.makepyfile(textwrap.dedent(tests.format(mark="")))


def with_anyio(pytester: pytest.Pytester, tests: str = TESTS) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(textwrap.dedent(ANYIO) + textwrap.dedent(tests.format(mark="@pytest.mark.anyio")))


# --- the fixtures ---


def test_they_work_with_pytest_trio(pytester: pytest.Pytester) -> None:
    with_trio(pytester)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_they_work_with_anyios_plugin_on_trio(pytester: pytest.Pytester) -> None:
    with_anyio(pytester)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_they_work_with_anyios_plugin_where_there_is_no_pytest_trio(pytester: pytest.Pytester) -> None:
    with_anyio(pytester)
    pytester.runpytest_subprocess("-p", "no:pytest_trio").assert_outcomes(passed=2)


def test_they_work_with_pytest_trio_where_there_is_no_anyio(pytester: pytest.Pytester) -> None:
    with_trio(pytester)
    pytester.runpytest_subprocess("-p", "no:anyio").assert_outcomes(passed=2)


def test_a_test_that_fails_shows_what_went_over_its_network(pytester: pytest.Pytester) -> None:
    with_trio(
        pytester,
        """
        async def test_fails(ws_network):
            await ws_network.open_stream("example.test", 80)
            assert False

        async def test_fails_without():
            assert False

        async def test_passes(ws_network):
            pass
        """,
    )
    result = pytester.runpytest_inprocess()

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*trio_wsprim transcript*", "*  #1  client DIAL example.test:80"])
    assert str(result.stdout).count("trio_wsprim transcript") == 1


# --- the option ---


@pytest.mark.parametrize(
    ("name", "kind", "server_kind"),
    [
        ("websockets", "WebsocketsTransport", "WebsocketsTransport"),
        ("trio-websocket", "TrioWebsocketTransport", "TrioWebsocketTransport"),
        ("memory", "MemoryTransport", "WebsocketsTransport"),
    ],
)
def test_the_option_pins_the_transport_for_the_run(
    name: str, kind: str, server_kind: str, pytester: pytest.Pytester
) -> None:
    with_trio(
        pytester,
        TESTS
        + f"""
    def test_the_transport() -> None:
        from trio_wsprim import _attempt, _server

        assert type(_attempt.default_transport()).__name__ == "{kind}"
        assert type(_server.default_transport()).__name__ == "{server_kind}"
    """,
    )
    pytester.runpytest_inprocess(f"--ws-transport={name}").assert_outcomes(passed=3)

    for module in (_attempt, _server):
        assert vars(module)["default_transport"] is trio_wsprim.transports.default_transport


def test_an_unknown_transport_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--ws-transport=pigeons")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ws-transport: invalid choice*"])


def test_a_transport_that_is_not_installed_is_refused_with_a_sentence(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_wsprim.transports._websockets.is_available", lambda: False)
    result = pytester.runpytest_inprocess("--ws-transport=websockets")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--ws-transport=websockets: WebsocketsTransport needs websockets*"])


def test_what_is_pinned_is_undone_also_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="mine"), pinned_transport("memory"):
        assert isinstance(vars(_attempt)["default_transport"](), MemoryTransport)
        raise RuntimeError("mine")
    assert vars(_attempt)["default_transport"] is trio_wsprim.transports.default_transport


# --- what it costs others ---


def test_who_does_not_use_it_does_not_import_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_imported():
            assert "pytest_trio_wsprim" in sys.modules
            assert "trio_wsprim" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:pytest_trio").assert_outcomes(passed=1)


def test_doctests_and_the_like_have_no_fixtures_and_may_fail(pytester: pytest.Pytester) -> None:
    pytester.makefile(".txt", test_it=">>> 1\n2\n")
    pytester.runpytest_inprocess().assert_outcomes(failed=1)


# --- the examples of the page ---


@pytest.mark.parametrize("arguments", [(), ("--ws-transport=websockets",), ("--ws-transport=trio-websocket",)])
def test_the_examples_pass_on_every_transport(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=EXAMPLES.parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
