"""How peers are found, installed, and gone without."""

import os
from pathlib import Path

import pytest

from tests import peers
from tests.peers import MissingPeer, __main__, free_ports, install_chromium, need_chromium, need_ws


@pytest.fixture
def _nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any peer, and without apt-get."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(peers, "NODE_FOLDER", tmp_path)


@pytest.mark.usefixtures("_nothing_here")
def test_a_test_whose_peer_is_not_here_is_skipped_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    for need in (need_chromium, need_ws):
        with pytest.raises(pytest.skip.Exception, match=r"is not installed; `python -m tests\.peers` does that"):
            need()


@pytest.mark.usefixtures("_nothing_here")
def test_in_continuous_integration_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    for need in (need_chromium, need_ws):
        with pytest.raises(pytest.fail.Exception, match="nothing is left out"):
            need()


@pytest.mark.usefixtures("_nothing_here")
def test_without_apt_get_that_is_said() -> None:
    with pytest.raises(MissingPeer, match="no apt-get here"):
        install_chromium()


@pytest.mark.usefixtures("_nothing_here")
def test_who_is_not_root_is_told_what_root_would_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\nexit 7\n")
    apt_get.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(MissingPeer, match="this needs root: apt-get install chromium"):
        install_chromium()


@pytest.mark.usefixtures("_nothing_here")
def test_an_installation_that_fails_says_what_it_ran_and_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text("#!/bin/sh\necho no such package >&2\nexit 7\n")
    apt_get.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with pytest.raises(MissingPeer, match=r"(?s)`apt-get update -qq` failed with 7:.*no such package"):
        install_chromium()


def test_the_command_goes_on_without_a_peer_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise MissingPeer("it is not to be had")

    monkeypatch.setattr(__main__, "PEERS", {"Netscape": fail, "Lynx": lambda: None})

    assert __main__.main() == 0
    assert (
        capsys.readouterr().out == "Netscape: not here, so its tests will be skipped; it is not to be had\nLynx: here\n"
    )


def test_free_ports_are_different_ones() -> None:
    assert len(set(free_ports(20))) == 20
