"""`dataclass`, `field`, `replace`, `asdict`, `fields`: the standard library's, made for a quick start.

Type checkers see `dataclasses` itself, and what is here behaves like it, for what this package uses of it.
The difference is when the work is done. The standard library compiles six functions for every class when
its module is imported, half a millisecond each; a build imports some 150 such classes, makes instances of a
third, and is over in a tenth of a second where everything is cached. Here `__init__` is compiled with the
first instance, and comparison, hash and representation are one function each, shared by all.
`dataclasses.fields`, `replace` and `asdict` take these classes too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
else:
    from operator import attrgetter, ge, gt, le, lt

    class _Missing:
        """What stands where no default is."""

        __slots__ = ()

        def __repr__(self) -> str:
            return "<required>"

    _MISSING = _Missing()

    class Field:
        """One field: its name, its type as written, and its default."""

        __slots__ = ("default", "default_factory", "init", "name", "repr", "type")

        def __init__(self, default=_MISSING, default_factory=_MISSING, init=True, repr=True):
            self.name = self.type = ""
            self.default = default
            self.default_factory = default_factory
            self.init = init
            self.repr = repr

    def field(*, default=_MISSING, default_factory=_MISSING, init=True, repr=True):
        """As `dataclasses.field`."""
        return Field(default, default_factory, init, repr)

    def dataclass(cls=None, *, frozen=False, slots=False, kw_only=False, order=False, repr=True):
        """As `dataclasses.dataclass`."""

        def wrap(cls):
            return _make(cls, frozen, slots, kw_only, order, repr)

        return wrap if cls is None else wrap(cls)

    def _make(cls, frozen, slots, kw_only, order, repr):
        found = {}
        for base in reversed(cls.__mro__[1:]):
            found.update(base.__dict__.get("__img_fields__", ()))
        own = {}
        for name, kind in cls.__annotations__.items():
            if str(kind).startswith("ClassVar"):
                continue
            default = cls.__dict__.get(name, _MISSING)
            own[name] = one = default if isinstance(default, Field) else Field(default)
            one.name, one.type = name, kind
        found.update(own)
        body = {
            n: v for n, v in cls.__dict__.items() if n not in own and n not in ("__dict__", "__weakref__")
        }
        body["__img_fields__"] = found
        body["__dataclass_fields__"] = _StandardFields()
        if slots:
            body["__slots__"] = tuple(own)
            body.setdefault("__getstate__", _getstate)
            body.setdefault("__setstate__", _setstate)
        else:
            body.update({n: one.default for n, one in own.items() if one.default is not _MISSING})
        if not kw_only:
            body["__match_args__"] = tuple(name for name, one in found.items() if one.init)
        if repr:
            body.setdefault("__repr__", _repr)
        names = tuple(found)
        body["__img_values__"] = staticmethod(attrgetter(*names) if names else _nothing)
        if "__eq__" not in body:
            body["__eq__"] = _eq
            body["__hash__"] = _hash if frozen else body.get("__hash__")
        if order:
            body.update({f"__{name}__": _ordered(compare) for name, compare in _ORDERS.items()})
        if frozen:
            body["__setattr__"], body["__delattr__"] = _setattr, _delattr
        if "__init__" not in body:
            body["__init__"] = _first_init(kw_only)
        made = type(cls)(cls.__name__, cls.__bases__, body)
        made.__qualname__ = cls.__qualname__
        made.__init__.__img_class__ = made
        return made

    def _first_init(kw_only):
        """An `__init__` that compiles the real one, puts it in its own place, and calls it."""

        def __init__(self, *args, **kwargs):
            made = __init__.__img_class__
            made.__init__ = _compiled(made, kw_only)
            made.__init__(self, *args, **kwargs)

        return __init__

    def _compiled(cls, kw_only):
        known = {"_MISSING": _MISSING}
        words, lines = [], []
        for name, one in cls.__img_fields__.items():
            known[f"_set_{name}"] = _setter(cls, name)
            known[f"_default_{name}"] = one.default_factory if one.default is _MISSING else one.default
            value = name
            if one.default_factory is not _MISSING:
                value = (
                    f"_default_{name}() if {name} is _MISSING else {name}"
                    if one.init
                    else f"_default_{name}()"
                )
            elif not one.init:
                if one.default is _MISSING:
                    continue
                value = f"_default_{name}"
            lines.append(f" _set_{name}(self, {value})")
            if one.init:
                plain = one.default is _MISSING
                default = (
                    "=_MISSING" if plain and one.default_factory is not _MISSING else f"=_default_{name}"
                )
                words.append(name if plain and one.default_factory is _MISSING else name + default)
        if hasattr(cls, "__post_init__"):
            lines.append(" self.__post_init__()")
        star = "*, " if kw_only and words else ""
        text = f"def __init__(self, {star}{', '.join(words)}):\n" + "\n".join(lines or [" pass"])
        exec(text, known)
        made = known["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        made.__img_class__ = cls
        return made

    def _setter(cls, name):
        """Sets a field, frozen or not: a slot's own descriptor, where there is one."""
        for base in cls.__mro__:
            slot = base.__dict__.get(name)
            if hasattr(slot, "__set__"):
                return slot.__set__
        return lambda self, value: object.__setattr__(self, name, value)

    def _nothing(value):
        return ()

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__img_values__(self) == self.__img_values__(other)

    def _ordered(compare):
        def __compare__(self, other):
            if other.__class__ is not self.__class__:
                return NotImplemented
            return compare(self.__img_values__(self), self.__img_values__(other))

        return __compare__

    _ORDERS = {"lt": lt, "le": le, "gt": gt, "ge": ge}

    def _hash(self):
        return hash(self.__img_values__(self))

    def _repr(self):
        shown = (f"{n}={getattr(self, n)!r}" for n, one in self.__img_fields__.items() if one.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def _setattr(self, name, value):
        _frozen(f"cannot assign to field {name!r}")

    def _delattr(self, name):
        _frozen(f"cannot delete field {name!r}")

    def _frozen(text):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(text)

    def _getstate(self):
        return [getattr(self, name) for name in self.__img_fields__]

    def _setstate(self, state):
        for name, value in zip(self.__img_fields__, state, strict=True):
            object.__setattr__(self, name, value)

    class _StandardFields:
        """The fields as the standard library has them, for its own functions, made when they ask."""

        def __get__(self, instance, cls):
            import dataclasses

            found = {}
            for name, one in cls.__img_fields__.items():
                default = one.default if one.default is not _MISSING else dataclasses.MISSING
                factory = one.default_factory if one.default_factory is not _MISSING else dataclasses.MISSING
                known = dataclasses.field(
                    default=default, default_factory=factory, init=one.init, repr=one.repr
                )
                known.name, known.type, known._field_type = name, one.type, dataclasses._FIELD
                found[name] = known
            return found

    def fields(value):
        """As `dataclasses.fields`."""
        return tuple(value.__img_fields__.values())

    def is_dataclass(value):
        """As `dataclasses.is_dataclass`."""
        return hasattr(value, "__img_fields__")

    def replace(value, /, **changes):
        """As `dataclasses.replace`."""
        kept = {
            n: getattr(value, n) for n, one in value.__img_fields__.items() if one.init and n not in changes
        }
        return value.__class__(**kept, **changes)

    def asdict(value: Any) -> Any:
        """As `dataclasses.asdict`; what is no field, list, tuple or dict is not copied."""
        if hasattr(value, "__img_fields__") and not isinstance(value, type):
            return {name: asdict(getattr(value, name)) for name in value.__img_fields__}
        if isinstance(value, (list, tuple)):
            return type(value)(asdict(item) for item in value)
        if isinstance(value, dict):
            return {asdict(key): asdict(item) for key, item in value.items()}
        return value


__all__ = ["asdict", "dataclass", "field", "fields", "is_dataclass", "replace"]
