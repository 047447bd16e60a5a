"""The speed comparison runs in small, its server is a sound one, and its arithmetic can tell ok from missed."""

import asyncio
import json
import shutil
import struct
import sys
from collections.abc import AsyncGenerator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import trio

from benchmarks import speed
from benchmarks._speed_contenders import CONTENDERS, pick_contenders
from benchmarks._speed_cores import Bystanders, share_out
from benchmarks._speed_crowd import idle, resident_kib, storm
from benchmarks._speed_exchange import measure, play
from benchmarks._speed_figures import Book, Spread, spread
from benchmarks._speed_page import PAGE, RECORD, draw, fill
from benchmarks._speed_report import as_text
from benchmarks._speed_rounds import Findings, Plan
from benchmarks._speed_server import CannotBuild, Server, build, running_server
from benchmarks._speed_verdicts import REQUIREMENTS, Requirement, Verdict, judge
from benchmarks._speed_words import ALL_SCENARIOS, Sample, Scenario, Target, pick_scenarios
from benchmarks._speed_worker import Job, read_job

# Those that the gate's packages are enough for.
TRIO_CLIENTS = ["ours-websockets", "ours-websockets-many", "ours-websockets-loaded", "ours-trio-websocket"]
TRIO_CLIENTS += ["trio-websocket", "trio-websocket-tuned", "websockets-trio", "raw-trio"]
PATIENCE = 30.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server stands on epoll")


# --- the server ---


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("server"))
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.fixture
async def server(program: Path, tmp_path: Path) -> AsyncGenerator[Server]:
    async with running_server(program, tmp_path) as running:
        yield running


async def open_ws(target: Target, path: str) -> trio.SocketStream:
    """Shake hands by hand, so that the server is asked what no library would ask."""
    stream = await trio.open_tcp_stream(target.host, target.port)
    await stream.send_all(
        b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % path.encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive_some(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # the example of RFC 6455, 1.3
    return stream


def frame(first: int, body: bytes) -> bytes:
    """Make a frame of a client."""
    length = struct.pack("!B", 0x80 | min(len(body), 126 if len(body) < 2**16 else 127))
    if len(body) > 125:
        length += struct.pack("!H" if len(body) < 2**16 else "!Q", len(body))
    mask = b"\x12\x34\x56\x78"
    return bytes([first]) + length + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))


def answered(first: int, body: bytes) -> bytes:
    """Make the same of a server."""
    masked = frame(first, body)
    head = len(masked) - len(body) - 4
    return bytes([first, masked[1] & 0x7F]) + masked[2:head] + body


async def read_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        assert part, "the server hung up"
        data += part
    return bytes(data)


@pytest.mark.parametrize("piece", [1, 3, 7, 10**6])
async def test_the_server_echoes_whatever_the_pieces_in_which_frames_come(server: Server, piece: int) -> None:
    bodies = [b"", b"a", b"hello, world", b"x" * 125, b"y" * 126, b"z" * 300]
    sent = (
        b"".join(frame(0x81, body) for body in bodies) + frame(0x02, b"one") + frame(0x89, b"?") + frame(0x80, b"two")
    )
    wanted = b"".join(answered(0x81, body) for body in bodies)
    wanted += answered(0x02, b"one") + answered(0x8A, b"?") + answered(0x80, b"two")

    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/echo") as stream:
            for start in range(0, len(sent), piece):
                await stream.send_all(sent[start : start + piece])
            assert await read_exactly(stream, len(wanted)) == wanted


async def test_the_server_echoes_what_is_larger_than_its_buffer(server: Server) -> None:
    body = bytes(range(251)) * 4000

    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/echo") as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, frame(0x82, body))
            wanted = answered(0x82, body)
            assert await read_exactly(stream, len(wanted)) == wanted


async def test_the_server_answers_a_close_and_hangs_up(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/echo") as stream:
            await stream.send_all(frame(0x88, b"\x03\xe8bye") + frame(0x81, b"too late"))
            wanted = answered(0x88, b"\x03\xe8bye")
            assert await read_exactly(stream, len(wanted)) == wanted


async def test_the_server_pushes_as_many_as_it_is_asked_for(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/flood/1024") as stream:
            for count in (1, 3, 1000):
                await stream.send_all(frame(0x81, str(count).encode()))
                wanted = answered(0x81, b"x" * 1024) * count
                assert await read_exactly(stream, len(wanted)) == wanted


async def test_the_sink_confirms_the_last_message_and_no_other(server: Server) -> None:
    done = answered(0x81, b"done")
    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/sink") as stream:
            for _ in range(2):
                await stream.send_all(frame(0x81, b"3") + frame(0x81, b"one") + frame(0x8A, b"") + frame(0x81, b"two"))
                await stream.send_all(frame(0x89, b"ping"))
                assert await read_exactly(stream, 6) == answered(0x8A, b"ping")
                await stream.send_all(frame(0x01, b"th") + frame(0x80, b"ree"))
                assert await read_exactly(stream, len(done)) == done


async def test_the_server_drops_all_at_once(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with await open_ws(server.plain, "/echo") as one, await open_ws(server.plain, "/sink") as two:
            async with await trio.open_tcp_stream(server.plain.host, server.plain.port) as control:
                await control.send_all(b"GET /drop/fin HTTP/1.1\r\n\r\n")
                assert (await control.receive_some()).startswith(b"HTTP/1.1 200 ")
            assert await one.receive_some() == b""
            assert await two.receive_some() == b""


async def test_the_server_refuses_what_it_does_not_know(server: Server) -> None:
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(server.plain.host, server.plain.port) as stream:
            await stream.send_all(b"GET /nowhere HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


def test_what_is_missing_to_build_the_server_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CannotBuild, match="apt-get install gcc"):
        build(tmp_path)


# --- the contenders ---


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("name", TRIO_CLIENTS)
async def test_a_contender_on_trio_plays_every_scenario(server: Server, name: str, is_tls: bool) -> None:
    (contender,) = pick_contenders([name])
    client = contender.client()
    target = server.tls if is_tls else server.plain
    for scenario in ALL_SCENARIOS[:7]:
        if contender.plays(scenario):
            with trio.fail_after(PATIENCE):
                async with client.talk(target, scenario) as talk:
                    if scenario.path == "/echo":
                        await talk.check(scenario.message)
                    await play(talk, scenario)(3)
    await client.aclose()


@pytest.mark.parametrize("kind", ["rtt", "pipe", "burst", "flood", "big"])
async def test_a_contender_on_asyncio_plays_every_scenario(server: Server, kind: str) -> None:
    (contender,) = pick_contenders(["websockets-asyncio"])
    client = contender.client()
    scenario = Scenario(kind=kind, size=2**18 if kind == "big" else 32)

    async def talk() -> None:
        async with asyncio.timeout(PATIENCE), client.talk(server.plain, scenario) as talk:
            await play(talk, scenario)(3)

    await trio.to_thread.run_sync(client.runtime.run, talk)


@pytest.mark.parametrize("name", ["ours-trio-websocket", "trio-websocket", "websockets-trio"])
async def test_idle_connections_are_weighed(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks._speed_crowd._SETTLE", 0.0)
    (contender,) = pick_contenders([name])

    figures = await idle(contender.client(), server.plain, count=10, seconds=0.01)

    assert figures.keys() == {"open", "load", "memory", "private"}
    assert figures["open"] > 0


@pytest.mark.parametrize("name", ["ours-trio-websocket", "websockets-trio"])
async def test_a_storm_is_over_when_all_connections_are_back(server: Server, name: str) -> None:
    (contender,) = pick_contenders([name])

    assert (await storm(contender.client(), server.plain, count=10))["wall"] > 0


def test_memory_is_read_in_kib() -> None:
    resident = resident_kib()

    assert 1024 < resident["Private"] <= resident["Rss"] < 2**24


async def test_a_measurement_finds_the_number_of_messages_by_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    played: list[int] = []
    monkeypatch.setattr("time.perf_counter", lambda: now)

    async def run(count: int) -> None:
        nonlocal now
        now += count * 0.001
        played.append(count)

    timing = await measure(run, 1.0)

    assert played == [1, 8, 64, 128, 256, 1000]
    assert (timing.messages, round(timing.wall, 3)) == (1000, 1.0)


# --- the scenarios ---


def test_scenarios_have_names_that_tell_them_apart() -> None:
    names = [each.name for each in ALL_SCENARIOS]

    assert len(set(names)) == len(names)
    assert {"rtt", "flood", "flood-1k", "big-256k", "big-4m", "big-4m/tls", "idle", "storm", "import"} <= set(names)


@pytest.mark.parametrize(
    ("words", "plain", "tls", "names"),
    [
        (["flood"], True, False, ["flood", "flood-1k"]),
        (["flood-1k"], True, True, ["flood-1k", "flood-1k/tls"]),
        (["rtt", "storm"], False, True, ["rtt/tls"]),
        (["rtt/tls"], True, True, ["rtt/tls"]),
    ],
)
def test_scenarios_are_picked_by_kind_or_name(words: list[str], plain: bool, tls: bool, names: list[str]) -> None:
    assert [each.name for each in pick_scenarios(words, plain=plain, tls=tls)] == names


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="no scenario is called 'rrt'"):
        pick_scenarios(["rrt"], plain=True, tls=True)
    with pytest.raises(ValueError, match="no contender is called 'us'"):
        pick_contenders(["us"])


def test_a_job_is_read_as_it_was_written() -> None:
    job = Job(scenario=Scenario(kind="rtt", size=32, is_tls=True), target=Target(1, 2, "ca.pem"), seconds=0.5)

    assert read_job(job.as_line()) == job
    assert job.target.url("/echo") == "wss://127.0.0.1:1/echo"
    assert Target(1, 2).url("/echo") == "ws://127.0.0.1:1/echo"


def test_cores_are_shared_out() -> None:
    assert share_out("apart", {0, 1}).server == {1}
    assert share_out("apart", {0, 1, 2}).clients == {0, 1}
    assert share_out("same", {0, 1}).server == share_out("same", {0, 1}).clients == {0}
    assert share_out("apart", {3}).clients == share_out("any", {0, 1}).server == set()


def test_the_server_stays_awake_for_round_trips_if_a_core_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    rtt, pipe = Scenario(kind="rtt", size=32), Scenario(kind="pipe", size=32)
    plan = Plan(scenarios=[rtt, pipe], contenders=[])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})

    assert plan.wants_awake(rtt)
    assert not plan.wants_awake(pipe)
    assert replace(plan, server="awake").wants_awake(pipe)
    assert not replace(plan, server="asleep").wants_awake(rtt)
    assert not replace(plan, cores="same").wants_awake(rtt)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert not plan.wants_awake(rtt)


def test_crowds_have_processes_of_their_own_and_are_idle_in_some_rounds_only() -> None:
    plan = Plan(scenarios=ALL_SCENARIOS, contenders=[])

    assert [[each.name for each in group] for group in plan.groups(0)[1:]] == [["idle"], ["storm"]]
    assert [[each.name for each in group] for group in plan.groups(4)[1:]] == [["storm"]]
    assert sum(len(group) for group in plan.groups(0)) == len(ALL_SCENARIOS)


def test_bystanders_are_noticed_but_we_are_none_of_them() -> None:
    before = Bystanders()
    # One that has ended is no fault: a contender may have died.
    after = Bystanders(2**22 + 1)

    assert 0 <= before.cores() < 1000
    assert 0 <= after.cores() < 1000


# --- the arithmetic ---


def sample(contender: str, turn: int, wall: float, scenario: str = "rtt") -> Sample:
    return Sample(
        scenario=scenario, contender=contender, turn=turn, figures={"wall": wall}, messages=1, server=0.1, others=0.0
    )


SAMPLES = [sample("a", turn, wall) for turn, wall in enumerate([1.0, 2.0, 4.0])]
SAMPLES += [sample("b", turn, wall) for turn, wall in enumerate([3.0, 4.0, 4.0])]
BOOK = Book(SAMPLES)


def test_a_spread_is_a_median_and_its_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(middle=2.0, least=1.0, most=3.0, rounds=3)
    assert BOOK.spread("rtt", "a", "wall") == Spread(middle=2.0, least=1.0, most=4.0, rounds=3)
    assert BOOK.spread("rtt", "a", "memory") is None
    assert BOOK.spread("pipe", "a", "wall") is None


def test_a_ratio_is_taken_round_by_round() -> None:
    # That of the medians would be 4 / 2 as well, but not its ends: 3 / 1, 4 / 2 and 4 / 4.
    assert BOOK.times_as_good("rtt", "a", "b", "wall") == Spread(middle=2.0, least=1.0, most=3.0, rounds=3)
    assert BOOK.times_as_good("rtt", "a", "c", "wall") is None


def test_a_ratio_needs_both_in_the_same_round() -> None:
    book = Book([sample("a", 0, 1.0), sample("b", 1, 2.0), sample("a", 2, 1.0), sample("b", 2, 3.0)])

    assert book.times_as_good("rtt", "a", "b", "wall") == Spread(middle=3.0, least=3.0, most=3.0, rounds=1)


AGAINST_B = Requirement(scenario="rtt", subject="a", peer="b", bound=2.0)
AT_MOST = Requirement(scenario="rtt", subject="a", peer=None, bound=2.0)


@pytest.mark.parametrize(
    ("requirement", "outcome"),
    [
        (AGAINST_B, "ok"),
        (replace(AGAINST_B, bound=2.1), "missed"),
        (replace(AGAINST_B, peer="c"), "not measured"),
        (AT_MOST, "ok"),
        (replace(AT_MOST, bound=1.9), "missed"),
        (replace(AT_MOST, subject="c"), "not measured"),
    ],
)
def test_a_requirement_is_judged(requirement: Requirement, outcome: str) -> None:
    (verdict,) = judge(BOOK, [requirement])

    assert verdict.outcome == outcome


def test_nothing_is_judged_of_a_scenario_that_was_not_played() -> None:
    assert judge(BOOK, [replace(AGAINST_B, scenario="pipe")]) == []


def test_requirements_name_scenarios_and_contenders_that_take_part_in_them() -> None:
    scenarios = {each.name: each for each in ALL_SCENARIOS}
    contenders = {each.name: each for each in CONTENDERS}
    for each in REQUIREMENTS:
        assert contenders[each.subject].is_ours
        assert contenders[each.subject].plays(scenarios[each.scenario])
        assert each.peer is None or contenders[each.peer].plays(scenarios[each.scenario])


def test_the_tables_tell_all() -> None:
    findings = Findings(samples=SAMPLES, left_out={"picows": "No module named 'picows'"}, failures=["b: it broke"])
    found = Spread(middle=2.0, least=1.0, most=3.0, rounds=3)

    text = as_text(findings, [Verdict(requirement=AGAINST_B, found=found), Verdict(requirement=AT_MOST, found=None)])

    assert "rtt: microseconds a message" in text
    assert "2,000,000.00     150%" in text
    assert ">= 2     2.00  1.00 to 3.00      ok" in text
    assert "not measured" in text
    assert "left out: picows: No module named 'picows'" in text
    assert "FAILED: b: it broke" in text


# --- the command ---


def test_a_short_run_prints_and_writes_its_figures(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    words = ["--rounds=1", "--seconds=0.02", "--scenarios=rtt,flood", "--tls=off", f"--json={file}"]

    assert speed.main([*words, "--contenders=websockets-trio,ours-trio-websocket,raw-trio"]) == 0

    printed = capsys.readouterr().out
    assert "* trio_wsprim on trio-websocket" in printed
    assert "FAILED" not in printed
    written = json.loads(file.read_text())
    assert {each["scenario"] for each in written["samples"]} == {"rtt", "flood", "flood-1k"}
    assert len(written["samples"]) == 3 * 3 - 2  # raw TCP knows no floods
    assert written["made"]["packages"]["trio"] == trio.__version__
    assert written["failures"] == []


@pytest.mark.parametrize(("wall", "arguments", "code"), [(1.0, [], 0), (1.0, ["--check"], 1), (0.1, ["--check"], 0)])
def test_check_makes_a_missed_requirement_an_error(
    monkeypatch: pytest.MonkeyPatch, wall: float, arguments: list[str], code: int
) -> None:
    async def run(plan: Plan) -> Findings:
        assert [each.name for each in plan.contenders] == ["ours-websockets", "websockets-trio"]
        return Findings(samples=[sample("ours-websockets", 0, wall), sample("websockets-trio", 0, 1.0)])

    monkeypatch.setattr(speed, "run", run)

    assert speed.main(["--contenders=ours-websockets,websockets-trio", *arguments]) == code


def test_a_slip_on_the_command_line_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["--scenarios", "rrt"])
    assert "no scenario is called 'rrt'" in capsys.readouterr().err


def test_charts_need_matplotlib_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        speed.main(["--charts", str(tmp_path)])
    assert "needs matplotlib" in capsys.readouterr().err


def test_a_run_without_a_compiler_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert speed.main([]) == 1
    assert "apt-get install gcc" in capsys.readouterr().out


def test_the_page_has_a_place_for_every_table() -> None:
    sample = Sample(
        scenario="pipe", contender="ours-websockets", turn=0, figures={"wall": 2e-6}, messages=1, server=0.1, others=0.0
    )
    made = {"date": "2026-01-02", "python": "3.11", "cores": 2, "processor": "some", "packages": {"trio": "0.35"}}
    tables = draw({"samples": [asdict(sample)], "made": made, "plan": {"rounds": 1}})

    page = fill(PAGE.read_text(encoding="utf-8"), tables)

    assert "Measured on 2026-01-02" in page
    assert "| **trio_wsprim on websockets** |  | 500 |" in page


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for 'rates'"):
        fill("<!-- rates -->\nwithout an end", {"rates": "|"})


def test_the_page_shows_what_the_record_says() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert page == fill(page, draw(json.loads(RECORD.read_text(encoding="utf-8"))))
