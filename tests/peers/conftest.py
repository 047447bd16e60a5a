from pathlib import Path

import pytest

from tests.peers import need_chromium, need_ws

# Fixtures, and no calls in the tests: what skips under trio comes out as a group, without its words.


@pytest.fixture
def chromium_program() -> Path:
    return need_chromium()


@pytest.fixture
def ws_package() -> Path:
    return need_ws()
