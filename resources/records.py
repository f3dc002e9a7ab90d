"""Dataclasses for a process that has no room for Python's: the same classes, a tenth of the memory.

Python's module reads the source of functions (`inspect`, `ast`, `dis`, `tokenize`) and writes code
for each class, which is compiled at the start and kept: 3.5 MB for the agent's 145 classes, an
eighth of what it may have (ADR 43). Here one `__init__` serves all classes, by a table of each.

For type checkers these *are* Python's, so that nothing they know of those is lost; a test holds
both to the same promises. What is not needed here is refused: classes that are ordered, fields
without comparison, `__post_init__`, `InitVar`, `ClassVar`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
else:
    _NONE = object()
    _set = object.__setattr__

    class _Field:
        __slots__ = ("default", "factory", "is_shown")

        def __init__(self, default, factory=None, is_shown=True):
            # One that is changed by one record would be changed for all.
            assert default.__hash__ is not None, "a default that can change: use default_factory"
            self.default = default
            self.factory = factory
            self.is_shown = is_shown

        @property
        def is_required(self):
            return self.factory is None and self.default is _NONE

        def begin(self):
            return self.default if self.factory is None else self.factory()

    def field(*, default=_NONE, default_factory=None, repr=True):
        return _Field(default, default_factory, repr)

    def dataclass(*, frozen=False, slots):
        """With `slots` always: it is said for readers who know it of Python's."""
        assert slots
        return _frozen if frozen else _mutable

    def _mutable(cls):
        # Equal by what may change: no hash.
        return _made(cls, {"__hash__": None})

    def _frozen(cls):
        return _made(cls, {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse})

    def _made(cls, ways):
        own = dict(cls.__dict__)
        own.pop("__dict__", None)
        own.pop("__weakref__", None)
        assert "__post_init__" not in own, f"{cls.__name__}: __post_init__ is never called"
        names = tuple(cls.__annotations__)
        known = {name: own.pop(name) for name in names if name in own}
        fields = {n: one if isinstance(one, _Field) else _Field(one) for n, one in known.items()}
        before = getattr(cls, "__match_args__", ())
        common = {"__init__": _init, "__repr__": _repr, "__eq__": _eq, "__reduce__": _reduce}
        own = {
            **common,
            **ways,
            **own,
            "__slots__": names,
            "__match_args__": (*before, *names),
            "__record__": {**getattr(cls, "__record__", {}), **fields},
        }
        made = type(cls)(cls.__name__, cls.__bases__, own)
        made.__qualname__ = cls.__qualname__
        return made

    def _init(self, *given, **named):
        names = self.__match_args__
        for name, value in zip(names, given, strict=False):
            _set(self, name, value)
        if len(given) != len(names) or named:
            _fill(self, names, len(given), named)

    def _fill(self, names, count, named):
        known, what = self.__record__, type(self).__name__
        if count > len(names):
            raise TypeError(f"{what} has {len(names)} fields, and was given {count}")
        for name in names[count:]:
            if name in named:
                value = named.pop(name)
            elif name not in known or known[name].is_required:
                raise TypeError(f"{what} was not given {name!r}")
            else:
                value = known[name].begin()
            _set(self, name, value)
        if named:
            raise TypeError(f"{what} was given {', '.join(named)} too, or a second time")

    def _values(one):
        return tuple([getattr(one, name) for name in one.__match_args__])

    def _eq(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash(_values(self))

    def _repr(self):
        known = self.__record__
        shown = [n for n in self.__match_args__ if n not in known or known[n].is_shown]
        words = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({words})"

    def _reduce(self):
        return type(self), _values(self)

    def _refuse(self, name, value=None):
        raise AttributeError(f"cannot change {name!r} of {type(self).__name__}: it is frozen")

    def replace(one, /, **changes):
        return type(one)(**{n: getattr(one, n) for n in one.__match_args__} | changes)

    def asdict(one):
        return {name: _plain(getattr(one, name)) for name in one.__match_args__}

    def _plain(value):
        if hasattr(type(value), "__record__"):
            return asdict(value)
        if isinstance(value, dict):
            return {_plain(name): _plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(_plain, value))
        return value


__all__ = ["asdict", "dataclass", "field", "replace"]
