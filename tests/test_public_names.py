"""Every public name has a docstring, one path to import it by, and an entry in the reference."""

import importlib.util
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_origin

import pytest

import trio_wsprim
import trio_wsprim.abc
import trio_wsprim.testing
from tests.test_examples import ROOT

FACES: Final = (trio_wsprim, trio_wsprim.abc, trio_wsprim.testing)


def public_names() -> Iterator[tuple[ModuleType, str]]:
    for face in FACES:
        names: list[str] = face.__all__
        yield from ((face, name) for name in names)


def is_alias(value: object) -> bool:
    """Whether it is a type's other name, or a plain value, which can have no docstring of its own."""
    return get_origin(value) is not None or not (inspect.isclass(value) or inspect.isroutine(value))


@pytest.mark.parametrize(("face", "name"), list(public_names()), ids=lambda each: getattr(each, "__name__", each))
def test_a_public_name_has_a_docstring_that_is_a_sentence(face: ModuleType, name: str) -> None:
    value = getattr(face, name)
    if is_alias(value):
        return
    first, *_ = (inspect.getdoc(value) or "").splitlines() or [""]

    assert first.endswith((".", ":")), f"{name}: {first!r}"
    assert value.__doc__ is not inspect.getdoc(object)


def members(value: object) -> Iterator[tuple[str, Any]]:
    if inspect.isclass(value):
        for name, member in vars(value).items():
            if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                yield name, member


@pytest.mark.parametrize(("face", "name"), list(public_names()), ids=lambda each: getattr(each, "__name__", each))
def test_so_has_each_of_its_methods_and_properties(face: ModuleType, name: str) -> None:
    wanting = [each for each, member in members(getattr(face, name)) if not inspect.getdoc(member)]

    assert wanting == []


def test_what_is_public_has_one_path() -> None:
    # By identity: the request of the scripted peer and that of a server are two things of one name.
    paths = Counter(id(getattr(face, name)) for face, name in public_names() if not is_alias(getattr(face, name)))

    assert [name for face, name in public_names() if paths[id(getattr(face, name))] > 1] == []


def test_what_is_listed_is_there_once_and_sorted() -> None:
    for face in FACES:
        names: list[str] = face.__all__
        assert len(names) == len(set(names))
        assert [name for name in names if not hasattr(face, name)] == []


def test_the_reference_has_an_entry_for_each() -> None:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    source = [(Path(ROOT) / "docs" / "reference.md").read_text(encoding="utf-8")]

    conf.fill_in_reference(None, "reference", source)

    lines = [line.split(":: ")[1] for line in source[0].splitlines() if line.startswith(".. auto")]
    assert Counter(lines) == Counter(f"{face.__name__}.{name}" for face, name in public_names())
    assert "<!-- " not in source[0]
