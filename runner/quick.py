"""Dataclasses and named tuples as of the standard library, which take little time to define.

The command defines its classes at each start, and the standard modules compile for each: the
methods, and each annotation; and they import `inspect`.

Of frozen dataclasses, all classes here have the same methods. What is seldom asked for
(`dataclasses.fields` and its like, a signature, Python's words for a wrong call) is that of a
standard one with the same fields, which is made then. There are no slots: the fields of a
value are its `__dict__`. Named tuples are of `collections`, and annotations stay texts.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class _Factory:
    """A default that is made for each value."""

    def __init__(self, *, default_factory: Callable[[], object]) -> None:
        self.make = default_factory


def _dataclass(*, frozen: bool, kw_only: bool = False) -> Callable[[type[_T]], type[_T]]:
    """Do for a class what the standard decorator does, as far as it is used here."""
    if not frozen:
        raise TypeError("what is not frozen is a standard dataclass")
    return lambda cls: _define(cls, kw_only=kw_only)


def _define(cls: type[_T], *, kw_only: bool) -> type[_T]:
    names = tuple(cls.__annotations__)
    positional = () if kw_only else names
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    required = names - defaults.keys()
    factories = {name: d.make for name, d in defaults.items() if isinstance(d, _Factory)}
    blank = dict.fromkeys(names) | defaults
    check = getattr(cls, "__post_init__", None)
    standard = _Standard(cls, defaults, kw_only=kw_only)

    def __init__(self: object, /, *args: object, **given: object) -> None:  # noqa: N807
        values = dict(zip(positional, args, strict=False)) | given
        too_many = len(values) < len(args) + len(given)
        if too_many or not required <= values.keys() <= blank.keys():
            standard.made()(*args, **given)  # which raises TypeError
        for name in factories.keys() - values.keys():
            values[name] = factories[name]()
        vars(self).update(blank | values)  # in the order of the fields
        if check is not None:
            check(self)

    asked = {name: _Asked(standard, name) for name in _SELDOM}
    methods = {"__init__": __init__, "__match_args__": positional, **_METHODS, **asked}
    for name, method in methods.items():
        setattr(cls, name, method)
    for name in factories:
        delattr(cls, name)
    return cls


def _repr(self: object) -> str:
    fields = ", ".join([f"{name}={value!r}" for name, value in vars(self).items()])
    return f"{type(self).__qualname__}({fields})"


def _eq(self: object, other: object) -> bool:
    return vars(self) == vars(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(tuple(vars(self).values()))


def _set(_self: object, name: str, _value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(_self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _replace(self: _T, /, **changes: object) -> _T:
    return type(self)(**vars(self) | changes)


_METHODS = {
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
    "__replace__": _replace,  # copy.replace, since Python 3.13
}
_SELDOM = ("__dataclass_fields__", "__dataclass_params__", "__signature__")


class _Standard:
    """The standard dataclass with the fields of `cls`, made when it is first asked for."""

    def __init__(self, cls: type, defaults: dict[str, Any], *, kw_only: bool) -> None:
        self.cls = cls
        self._defaults = defaults
        self._kw_only = kw_only
        self._made: Any = None

    def made(self) -> Any:  # noqa: ANN401 - no type checker knows it
        if self._made is None:
            import dataclasses
            import inspect

            fields: list[Any] = []
            for name, kind in self.cls.__annotations__.items():
                default = self._defaults.get(name, dataclasses.MISSING)
                made = isinstance(default, _Factory)
                how = {"default_factory": default.make} if made else {"default": default}
                fields.append((name, kind, dataclasses.field(**how)))
            self._made = dataclasses.make_dataclass(
                self.cls.__name__, fields, frozen=True, kw_only=self._kw_only
            )
            self._made.__signature__ = inspect.signature(self._made)
        return self._made


class _Asked:
    """An attribute that a class has from its standard dataclass."""

    def __init__(self, standard: _Standard, name: str) -> None:
        self._standard = standard
        self._name = name

    def __get__(self, value: object, owner: type) -> object:
        if self._name == "__signature__" and owner is not self._standard.cls:
            raise AttributeError(self._name)  # what is derived from it may have another
        return getattr(self._standard.made(), self._name)


class _NamedTupleType(type):
    """Makes a named tuple of a class with annotations and defaults."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields = tuple(body["__annotations__"])
        defaults = [body.pop(field) for field in fields if field in body]
        made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # type: ignore[misc]  # noqa: PYI024
        for attribute, value in body.items():
            setattr(made, attribute, value)
        return made


class _NamedTuple(metaclass=_NamedTupleType):
    """What named tuples are declared with."""


class _TypedDict:
    """What the types of a dict are declared with, by its keys."""

    def __init_subclass__(cls, *, total: bool) -> None:
        """Take what type checkers read."""


if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import NamedTuple, TypedDict
else:
    dataclass, field, replace = _dataclass, _Factory, _replace
    NamedTuple, TypedDict = _NamedTuple, _TypedDict

__all__ = ["NamedTuple", "TypedDict", "dataclass", "field", "replace"]
