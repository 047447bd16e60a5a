"""Both ways to mask do the same, and one is always there."""

import importlib.util
import random
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from websockets.speedups import apply_mask as mask_in_c

from trio_wsprim import _mask
from trio_wsprim._mask import apply_mask, mask_wide

Mask = Callable[[bytes | memoryview, bytes], bytes]

KEY = b"\x01\x02\x83\xf4"
LARGE = [2**16 - 1, 2**16, 2**16 + 1, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 300 * 1024 + 3]

both = pytest.mark.parametrize("mask", [mask_wide, mask_in_c], ids=["wide", "c"])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def imported_anew() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mask_anew", _mask.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@both
@pytest.mark.parametrize("size", range(71))
def test_each_byte_is_changed_by_its_byte_of_the_key(mask: Mask, size: int) -> None:
    data = noise(size)
    assert mask(data, KEY) == bytes(byte ^ KEY[at % 4] for at, byte in enumerate(data))


@pytest.mark.parametrize("size", [*range(71), *LARGE])
@pytest.mark.parametrize("key", [KEY, bytes(4), b"\xff" * 4, b"\0\0\0\x80"])
def test_both_ways_are_the_same(key: bytes, size: int) -> None:
    data = noise(size)
    assert mask_wide(data, key) == mask_in_c(data, key)


@both
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 70, *LARGE])
def test_memory_is_masked_as_bytes_are_also_from_its_middle(mask: Mask, size: int) -> None:
    data = noise(size + 11)
    masked = mask(memoryview(data)[4 : 4 + size], KEY)
    assert type(masked) is bytes
    assert masked == mask(data[4 : 4 + size], KEY)


@both
@pytest.mark.parametrize("size", [*range(9), *LARGE])
def test_masking_twice_changes_nothing(mask: Mask, size: int) -> None:
    assert mask(mask(noise(size), KEY), KEY) == noise(size)


@both
def test_pieces_of_four_bytes_and_more_can_be_masked_one_by_one(mask: Mask) -> None:
    data = noise(300)
    assert mask(data[:128], KEY) + mask(data[128:256], KEY) + mask(data[256:], KEY) == mask(data, KEY)


def test_where_there_is_a_loop_in_c_it_is_taken() -> None:
    assert apply_mask is mask_in_c
    assert imported_anew().apply_mask is mask_in_c


def test_without_it_the_other_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)  # which is how Python notes that there is none
    module = imported_anew()
    assert module.apply_mask is module.mask_wide
    assert module.apply_mask(b"hello", KEY) == mask_in_c(b"hello", KEY)
