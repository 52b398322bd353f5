"""What is defined quickly behaves as the standard library's of the same fields does."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from types import ModuleType

import pytest

import runner
from runner import quick

CLASSES = [
    value
    for name in runner.__all__
    if isinstance(value := getattr(runner, name), type) and dataclasses.is_dataclass(value)
]


def make(module: ModuleType, **how: bool) -> type:
    @module.dataclass(frozen=True, **how)
    class Pair:
        __qualname__ = "Pair"  # as at the top of a module

        first: int
        second: str = "b"
        others: dict[str, int] = module.field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.first < 0:
                raise ValueError("negative")

    return Pair


OURS, STANDARD = make(quick), make(dataclasses)
WRONG_CALLS: list[Callable[[type], object]] = [
    lambda cls: cls(),
    lambda cls: cls(1, "x", {}, 4),
    lambda cls: cls(1, first=1),
    lambda cls: cls(1, third=1),
    lambda cls: cls(second="x"),
    lambda cls: setattr(cls(1), "first", 2),
    lambda cls: setattr(cls(1), "fourth", 2),
    lambda cls: delattr(cls(1), "first"),
    lambda cls: cls(-1),
]


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_dataclass_used_wrongly_raises_what_the_standard_one_does(
    wrong: Callable[[type], object],
) -> None:
    with pytest.raises(Exception) as standard:
        wrong(STANDARD)
    with pytest.raises(standard.type) as ours:
        wrong(OURS)
    assert ours.type is standard.type
    assert str(ours.value) == str(standard.value)


def test_dataclass_of_keywords_only_takes_none_by_position() -> None:
    ours, standard = make(quick, kw_only=True), make(dataclasses, kw_only=True)
    for wrong in (lambda cls: cls(1), lambda cls: cls()):
        with pytest.raises(TypeError) as expected:
            wrong(standard)
        with pytest.raises(TypeError) as raised:
            wrong(ours)
        assert str(raised.value) == str(expected.value)
    assert ours.__match_args__ == standard.__match_args__ == ()
    assert repr(ours(others={"a": 1}, first=2)) == repr(standard(others={"a": 1}, first=2))


def test_dataclass_values_are_equal_as_the_standard_ones_are() -> None:
    for cls in (OURS, STANDARD):
        assert cls(1) == cls(1, "b", {})
        assert cls(1) != cls(2)
        assert cls(1) != dataclasses.make_dataclass("Other", ["first"])(1)
        assert cls(1).others is not cls(1).others
        with pytest.raises(TypeError, match="unhashable type: 'dict'"):
            hash(cls(1))
    assert hash(OURS(1, others=())) == hash(OURS(others=(), first=1))
    assert hash(OURS(1, others=())) == hash(STANDARD(1, others=()))


def test_dataclass_given_to_the_standard_functions_is_a_dataclass() -> None:
    ours, standard = OURS(1, others={"a": 2}), STANDARD(1, others={"a": 2})
    assert dataclasses.is_dataclass(ours)
    assert dataclasses.asdict(ours) == dataclasses.asdict(standard)
    assert [(f.name, f.type, f.default) for f in dataclasses.fields(ours)] == [
        (f.name, f.type, f.default) for f in dataclasses.fields(standard)
    ]
    assert dataclasses.replace(ours, second="c") == OURS(1, "c", {"a": 2})
    assert quick.replace(ours, second="c") == OURS(1, "c", {"a": 2})
    assert inspect.signature(OURS) == inspect.signature(STANDARD)
    assert OURS.__match_args__ == STANDARD.__match_args__


def test_dataclass_inherited_from_is_a_dataclass_too() -> None:
    @dataclasses.dataclass(frozen=True)
    class Three(OURS):
        third: int = 3

    assert repr(Three(1)).endswith("Three(first=1, second='b', others={}, third=3)")
    assert list(inspect.signature(Three).parameters) == ["first", "second", "others", "third"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_dataclass_of_the_package_has_the_signature_of_its_fields(cls: type) -> None:
    parameters = inspect.signature(cls).parameters
    assert list(parameters) == list(cls.__annotations__)
    assert list(parameters) == [field.name for field in dataclasses.fields(cls)]


def test_dataclass_copied_or_pickled_stays_equal() -> None:
    limits = runner.Limits(cpu_time=1, rlimits=(runner.Rlimit.named("NOFILE", 3),))
    assert copy.copy(limits) == limits
    assert copy.deepcopy(limits) == limits
    assert pickle.loads(pickle.dumps(limits)) == limits


def make_tuple(module: ModuleType) -> type:
    class Pair(module.NamedTuple):
        """Two."""

        first: int
        second: Unknown = "b"  # noqa: F821 - an annotation is not read

        @property
        def both(self) -> str:
            return f"{self.first}{self.second}"

    return Pair


def test_named_tuple_is_what_the_standard_one_is() -> None:
    ours, standard = make_tuple(quick), make_tuple(typing)
    assert ours.__doc__ == standard.__doc__
    assert (ours.__module__, ours.__qualname__) == (standard.__module__, standard.__qualname__)
    assert (ours._fields, ours._field_defaults) == (standard._fields, standard._field_defaults)
    assert ours.__mro__[1:] == standard.__mro__[1:] == (tuple, object)
    assert ours.__annotations__ == {"first": "int", "second": "Unknown"}
    parameters = inspect.signature(ours).parameters
    assert list(parameters) == list(inspect.signature(standard).parameters)
    for cls in (ours, standard):
        assert (cls(1), repr(cls(1)), cls(second=2, first=1).both) == (
            (1, "b"),
            "Pair(first=1, second='b')",
            "12",
        )
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
            cls()
    assert pickle.loads(pickle.dumps(runner.Violation(None, 1, "x86_64", (), 2))).number == 1


def test_command_that_runs_imports_no_dataclasses() -> None:
    """It defines classes at each start, and so shall not compile their methods."""
    code = "import sys, runner.cli.main, runner.sandbox; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"argparse", "dataclasses", "inspect", "socket"} & set(loaded)
