"""Where plugins are found: files in ``methods/`` and ``datasets/``, and entry points.

A plugin registers itself by name when its module is imported::

    @register_method("my-method")
    class MyMethod(Method): ...

Nothing is imported before the first question is asked. A file that fails to import makes its own
name unusable and no other. Files whose names start with an underscore are helpers, not plugins.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wsolbench import PLUGIN_FOLDERS, user_folders
from wsolbench.errors import InputError, did_you_mean

if TYPE_CHECKING:
    # At run time these would load torch before anybody asked for a plugin.
    from wsolbench.dataset import Dataset
    from wsolbench.method import Method

T = TypeVar("T", bound=type)
M = TypeVar("M", bound="type[Method]")
D = TypeVar("D", bound="type[Dataset]")

# Names become parts of file names and of comma-separated lists on the command line.
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class DuplicateError(InputError):
    """Two plugins claim one name; it would depend on the search order which of them runs."""


class Registry(Generic[T]):
    """Plugins of one kind by name.

    Args:
        kind: what a plugin is called in messages, such as ``method``.
        package: the namespace package whose modules are plugins; also the entry point group.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._plugins: dict[str, T] = {}
        self._broken: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str, plugin: T) -> None:
        """Add a plugin class under ``name``.

        Raises:
            ValueError: when the name is not made of lower-case letters, digits, ``-`` and ``.``.
            DuplicateError: when another class has the name already; the line names both files.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' is no {self.kind} name: use a-z, 0-9, '-' and '.'")
        other = self._plugins.get(name, plugin)
        # A module that is loaded again replaces its own classes.
        if _identity(other) != _identity(plugin):
            raise self._duplicate(name, _file_of(other), _file_of(plugin))
        self._plugins[name] = plugin

    def discover(self) -> None:
        """Import every plugin once; later calls do nothing.

        Raises:
            InputError: when an entry of ``WSOLBENCH_PATH`` is not a folder with plugin folders.
            DuplicateError: when two files claim one name.
        """
        if self._discovered:
            return
        _check_user_folders()
        self._broken.clear()
        for module, file in self._modules().items():
            self._import(_plugin_name(module), module, file)
        for entry in entry_points(group=self.package):
            self._import(entry.name, entry.module, _file_of_entry(entry))
        self._discovered = True

    def names(self) -> list[str]:
        """Names of all plugins that can be used, sorted.

        Raises:
            InputError: as :meth:`discover`.
        """
        self.discover()
        return sorted(self._plugins)

    @property
    def broken(self) -> dict[str, str]:
        """What could not be imported: expected name to ``file: exception``, in one line each."""
        self.discover()
        return dict(self._broken)

    def get(self, name: str) -> T:
        """Return the plugin class of that name.

        Raises:
            InputError: when there is none, when its file failed to import, or as
                :meth:`discover`.
        """
        self.discover()
        if name in self._plugins:
            return self._plugins[name]
        if name in self._broken:
            raise InputError(f"{self.kind} '{name}' cannot be loaded: {self._broken[name]}")
        raise InputError(f"unknown {self.kind} '{name}'{did_you_mean(name, self._plugins)}")

    def _modules(self) -> dict[str, Path]:
        """Modules of the namespace package and their files, in search order."""
        found: dict[str, Path] = {}
        for folder in _namespace_folders(self.package):
            for file in sorted(folder.glob("[!_]*.py")):
                module = f"{self.package}.{file.stem}"
                # Python would import the first and never look at the second.
                if module in found:
                    raise self._duplicate(_plugin_name(module), found[module], file)
                found[module] = file
        return found

    def _import(self, name: str, module: str, file: Path | str) -> None:
        try:
            importlib.import_module(module)
        except DuplicateError:
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything, scripts exit
            self._forget(module)
            self._broken[name] = f"{file}: {_one_line(error)}"
            return
        if name not in self._plugins and not self._names_from(module):
            self._broken[name] = f"{file}: registers no {self.kind} (@register_{self.kind})"

    def _forget(self, module: str) -> None:
        for name in self._names_from(module):
            del self._plugins[name]

    def _names_from(self, module: str) -> list[str]:
        return [name for name, plugin in self._plugins.items() if plugin.__module__ == module]

    def _duplicate(self, name: str, first: Path | str, second: Path | str) -> DuplicateError:
        return DuplicateError(f"two {self.kind}s are named '{name}': {first} and {second}")


METHODS: Registry[type[Method]] = Registry("method", "wsolbench.methods")
DATASETS: Registry[type[Dataset]] = Registry("dataset", "wsolbench.datasets")


def register_method(name: str) -> Callable[[M], M]:
    """Class decorator: make a :class:`~wsolbench.method.Method` known as ``name``."""

    def decorate(cls: M) -> M:
        METHODS.register(name, cls)
        return cls

    return decorate


def register_dataset(name: str) -> Callable[[D], D]:
    """Class decorator: make a :class:`~wsolbench.dataset.Dataset` known as ``name``.

    The name is stored in the class variable ``name`` too.
    """

    def decorate(cls: D) -> D:
        cls.name = name
        DATASETS.register(name, cls)
        return cls

    return decorate


def resource_text(plugin: type[Any] | ModuleType, suffix: str = ".yaml") -> str | None:
    """Return the text of the file beside a plugin's module: ``sat.py`` and ``sat.yaml``.

    Args:
        plugin: a plugin class, or its module.
        suffix: what replaces ``.py``.

    Returns:
        The text, or None when there is no such file.
    """
    file = Path(_file_of(plugin))
    beside = file.with_name(file.stem + suffix)
    return beside.read_text("utf-8") if beside.is_file() else None


def _check_user_folders() -> None:
    for folder in user_folders():
        present = [folder / name for name in PLUGIN_FOLDERS if (folder / name).is_dir()]
        if not present:
            wanted = " or ".join(f"{name}/" for name in PLUGIN_FOLDERS)
            state = f"has no {wanted}" if folder.is_dir() else "is not a folder"
            raise InputError(f"WSOLBENCH_PATH: {folder} {state}")
        for init in (plugins / "__init__.py" for plugins in present):
            # It would turn the namespace package into a regular one and hide all other folders.
            if init.is_file():
                raise InputError(f"WSOLBENCH_PATH: {init} must not exist, plugins are single files")


def _namespace_folders(package: str) -> Iterator[Path]:
    """Folders of a namespace package, each once however often the search path has it."""
    spec = importlib.util.find_spec(package)
    locations = (spec and spec.submodule_search_locations) or ()
    yield from dict.fromkeys(Path(location).resolve() for location in locations)


def _plugin_name(module: str) -> str:
    return module.rpartition(".")[2].replace("_", "-")


def _identity(plugin: type) -> tuple[str, str]:
    return plugin.__module__, plugin.__qualname__


def _file_of(plugin: type[Any] | ModuleType) -> str:
    module = plugin if isinstance(plugin, ModuleType) else sys.modules.get(plugin.__module__)
    return getattr(module, "__file__", None) or f"<{plugin.__name__}>"


def _file_of_entry(entry: EntryPoint) -> str:
    owner = entry.dist.name if entry.dist else "an entry point"
    return f"{entry.module} (of {owner})"


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
