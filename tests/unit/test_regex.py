"""Every pattern of the package compiles: a mistake in one would else be found with its first use."""

from __future__ import annotations

import importlib
import pkgutil
import re

import img
import pytest
from img import regex


def _modules() -> list[str]:
    names = (module.name for module in pkgutil.walk_packages(img.__path__, "img."))
    return [name for name in names if name not in ("img.__main__", "img._core")]


def test_every_pattern_of_every_module_compiles() -> None:
    values = [value for name in _modules() for value in vars(importlib.import_module(name)).values()]
    patterns = [value for value in values if type(value).__module__ == "img.regex"]
    assert len(patterns) > 40
    assert all(pattern.groups >= 0 for pattern in patterns)


def test_a_pattern_is_the_standard_librarys_from_its_first_use_on() -> None:
    mine, theirs = regex.compile("(a)|b", re.IGNORECASE), re.compile("(a)|b", re.IGNORECASE)
    assert mine.pattern == theirs.pattern
    assert mine.sub("x", "ABc") == theirs.sub("x", "ABc") == "xxc"
    assert [found.span() for found in mine.finditer("bab")] == [f.span() for f in theirs.finditer("bab")]
    assert (mine.flags, mine.groups) == (theirs.flags, theirs.groups)
    assert "(a)|b" in repr(mine)


def test_a_mistake_is_the_standard_librarys() -> None:
    broken = regex.compile("(")
    with pytest.raises(re.error):
        broken.search("a")
