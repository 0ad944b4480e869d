"""`ConfigDraft`: what the instructions of one stage make of an image's config, one after the other.

`configure` changes it in place, so that an instruction costs what it says itself, however much stands there
already; `finished` makes the frozen `ImageConfig` of it, once. Nobody but the `Planner` of its stage has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from img.oci import ImageConfig
from img.values import replace

Table = Literal["Env", "Labels", "ExposedPorts", "Volumes"]
"""The fields of a config that instructions add entries to."""


class ConfigDraft:
    """A config that grows."""

    def __init__(self, config: ImageConfig) -> None:
        """Begins with a config, which stays as it is."""
        self._config = config
        self._run = dict(config.run)
        self._tables: dict[Table, dict[str, Any]] = {}
        self._triggers: list[str] | None = None

    def copy(self) -> ConfigDraft:
        """A draft that begins with what this one has now."""
        return ConfigDraft(self.finished())

    def finished(self) -> ImageConfig:
        """The config as it is now. A table that no instruction added to is as the base has it."""
        run = dict(self._run)
        for name, entries in self._tables.items():
            run[name] = _WRITTEN[name](entries)
        if self._triggers is not None:
            run["OnBuild"] = list(self._triggers)
        return replace(self._config, run=run)

    # ---- what planning asks ------------------------------------------------------------------

    @property
    def extra(self) -> Mapping[str, Any]:
        """As `ImageConfig.extra`."""
        return self._config.extra

    @property
    def working_dir(self) -> str:
        """The working folder, `/` where none is set."""
        return str(self._run.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        """`user[:group]`, empty for root."""
        return str(self._run.get("User") or "")

    @property
    def shell(self) -> tuple[str, ...]:
        """What a shell form is run by; empty where nobody has said."""
        return tuple(self._run.get("Shell") or ())

    # ---- what instructions do ----------------------------------------------------------------

    def set(self, **fields: object) -> None:
        """Sets fields that are no tables; None takes a field away."""
        for name, value in fields.items():
            if value is None:
                self._run.pop(name, None)
            else:
                self._run[name] = value

    def set_author(self, name: str) -> None:
        """Sets the author."""
        self._config = replace(self._config, author=name)

    def add(self, table: Table, entries: Mapping[str, Any]) -> None:
        """Adds entries to a table; one that is there keeps its place."""
        if table not in self._tables:
            self._tables[table] = _READ[table](self._config)
        self._tables[table].update(entries)

    def add_trigger(self, text: str) -> None:
        """Adds an ONBUILD trigger."""
        if self._triggers is None:
            self._triggers = list(self._run.get("OnBuild") or ())
        self._triggers.append(text)

    def take_triggers(self) -> tuple[str, ...]:
        """Gives the triggers that the base has, which an image built on it has no more."""
        return tuple(self._run.pop("OnBuild", None) or ())


def _read_names(field: str) -> Callable[[ImageConfig], dict[str, Any]]:
    return lambda config: dict.fromkeys(config.run.get(field) or ())


def _write_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: {} for name in sorted(names)}


_READ: dict[Table, Callable[[ImageConfig], dict[str, Any]]] = {
    "Env": lambda config: config.env,
    "Labels": lambda config: config.labels,
    "ExposedPorts": _read_names("ExposedPorts"),
    "Volumes": _read_names("Volumes"),
}
_WRITTEN: dict[Table, Callable[[dict[str, Any]], Any]] = {
    "Env": lambda entries: [f"{name}={value}" for name, value in entries.items()],
    "Labels": dict,
    "ExposedPorts": _write_names,
    "Volumes": _write_names,
}
