"""`img.values` against the standard library's `dataclasses`: the same classes, made both ways."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
from typing import Any, ClassVar

import pytest
from img import values


def made_by(module: Any) -> dict[str, Any]:
    """The same classes by one of the two modules."""

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Point:
        """A frozen one."""

        kinds: ClassVar[int] = 3
        x: int
        y: int = 2
        tags: dict[str, int] = module.field(default_factory=dict)
        hidden: str = module.field(default="s", repr=False)

        @property
        def sum(self) -> int:
            return self.x + self.y

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Far(Point):
        """One that inherits."""

        z: int = 0

    @module.dataclass(slots=True)
    class Box:
        """One that may be changed, with arguments by position."""

        item: Any
        count: int = 1
        total: int = module.field(init=False)

        def __post_init__(self) -> None:
            self.total = self.count * 2

    @module.dataclass(frozen=True)
    class Empty:
        """One without fields or slots."""

    @module.dataclass(frozen=True, slots=True, order=True)
    class Ranked:
        """One with an order."""

        major: int
        minor: int = 0

    return {"Ranked": Ranked, "Point": Point, "Far": Far, "Box": Box, "Empty": Empty}


OURS, THEIRS = made_by(values), made_by(dataclasses)

SAMPLES = [
    ("Point", (), {"x": 1}),
    ("Point", (), {"x": 1, "y": 5, "tags": {"a": 1}, "hidden": "t"}),
    ("Far", (), {"x": 1, "z": 9}),
    ("Box", (3,), {}),
    ("Box", ([1],), {"count": 4}),
    ("Empty", (), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), SAMPLES)
def test_an_instance_says_and_holds_the_same(name: str, args: Any, kwargs: Any) -> None:
    ours, theirs = OURS[name](*args, **kwargs), THEIRS[name](*args, **kwargs)
    assert repr(ours) == repr(theirs)
    assert values.asdict(ours) == dataclasses.asdict(theirs) == dataclasses.asdict(ours)
    assert [f.name for f in values.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    assert values.is_dataclass(ours) and dataclasses.is_dataclass(ours)
    assert not values.is_dataclass(3)


@pytest.mark.parametrize(("name", "args", "kwargs"), SAMPLES)
def test_equal_ones_are_equal_and_hash_alike(name: str, args: Any, kwargs: Any) -> None:
    one, other = OURS[name](*args, **kwargs), OURS[name](*args, **kwargs)
    assert one == other
    assert one != THEIRS[name](*args, **kwargs)
    try:
        expected = hash(THEIRS[name](*args, **kwargs)) is not None
    except TypeError:
        with pytest.raises(TypeError):
            hash(one)
    else:
        assert expected and hash(one) == hash(other)


def test_one_of_another_class_is_never_equal() -> None:
    assert OURS["Point"](x=1) != OURS["Far"](x=1)
    assert OURS["Point"](x=1) != OURS["Point"](x=2)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [("Point", (1,), {}), ("Point", (), {}), ("Point", (), {"x": 1, "q": 2}), ("Box", (1, 2, 3), {})],
)
def test_what_the_library_refuses_is_refused(name: str, args: Any, kwargs: Any) -> None:
    for classes in (OURS, THEIRS):
        for _ in range(2):  # the first call compiles, the second does not
            with pytest.raises(TypeError):
                classes[name](*args, **kwargs)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_one_with_an_order_compares_field_by_field(compare: Any) -> None:
    pairs = [((1, 2), (1, 3)), ((2,), (1, 9)), ((1,), (1,))]
    for left, right in pairs:
        ours = compare(OURS["Ranked"](*left), OURS["Ranked"](*right))
        assert ours == compare(THEIRS["Ranked"](*left), THEIRS["Ranked"](*right))
    for kind, other in (("Ranked", 3), ("Point", None)):
        with pytest.raises(TypeError):
            compare(OURS[kind](**{"major" if kind == "Ranked" else "x": 1}), other)


def test_a_frozen_one_is_frozen_and_has_no_other_fields() -> None:
    point = OURS["Point"](x=1)
    for name in ("x", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(point, name, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")
    box = OURS["Box"](1)
    box.count = 7
    with pytest.raises(AttributeError):
        box.other = 1


def test_a_default_that_is_made_is_made_anew() -> None:
    assert OURS["Point"](x=1).tags is not OURS["Point"](x=1).tags


@pytest.mark.parametrize("replace", [values.replace, dataclasses.replace])
def test_replace_gives_a_new_one(replace: Any) -> None:
    point = OURS["Far"](x=1, tags={"a": 1})
    assert replace(point, y=9) == OURS["Far"](x=1, y=9, tags={"a": 1})
    assert replace(OURS["Box"](3), count=4).total == 8
    with pytest.raises(TypeError):
        replace(point, nothing=1)


def test_asdict_goes_into_lists_tuples_and_dicts() -> None:
    inner = OURS["Point"](x=1)
    data = values.asdict(OURS["Box"]([inner, (inner,), {"k": inner}]))
    plain = {"x": 1, "y": 2, "tags": {}, "hidden": "s"}
    assert data == {"item": [plain, (plain,), {"k": plain}], "count": 1, "total": 2}


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One that pickle can find."""

    x: int
    y: tuple[int, ...] = ()


def test_one_can_be_copied_and_pickled() -> None:
    kept = Kept(x=1, y=(2,))
    assert copy.copy(kept) == copy.deepcopy(kept) == pickle.loads(pickle.dumps(kept)) == kept
    assert copy.copy(Kept(x=1)) != kept


def test_a_pattern_takes_one_apart_by_name() -> None:
    match Kept(x=4):
        case Kept(x=number):
            assert number == 4
