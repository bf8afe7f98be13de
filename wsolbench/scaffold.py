"""A method to start from: one file and its recipe that pass the conformance kit as written."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path

from wsolbench import checkout, user_folders
from wsolbench.errors import InputError
from wsolbench.files import write_text
from wsolbench.registry import METHODS

# Narrower than what a registry takes: the name becomes a module and, in capitals, a class.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

#: what the templates call the method, its module, its class and its title
_TEMPLATE = ("new-method", "new_method", "NewMethod", "New method")
_SUFFIXES = (".py", ".yaml")


def new_method(name: str, folder: Path | None = None) -> list[Path]:
    """Write ``<folder>/<name>.py`` and ``.yaml`` and return their paths.

    Args:
        name: of the method; the files have ``_`` for ``-``.
        folder: where to; None for ``methods/`` of the checkout or, outside of one, of the current
            folder.

    Raises:
        InputError: for a name that is no name or is taken, or a file that exists or cannot be
            written.
    """
    texts = _texts(name)
    _check_free(name)
    target = (checkout() or Path()) / "methods" if folder is None else folder
    files = {target / (_module(name) + suffix): text for suffix, text in texts.items()}
    for file in files:
        if file.exists() or file.is_symlink():
            raise InputError(f"'{file}' exists already; take another name or remove it")
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def how_to_find(file: Path, name: str) -> str:
    """Say in one line how a new method is found and checked."""
    folder = file.resolve().parent
    check = f"wsolbench check {name}"
    if folder.name != "methods":
        return f"next: name the module in an entry point (see CONTRIBUTING.md), then {check}"
    if folder.parent in (checkout(), *(user.resolve() for user in user_folders())):
        return f"next: {check}"
    return f"next: add {folder.parent} to WSOLBENCH_PATH, then {check}"


def _texts(name: str) -> dict[str, str]:
    """Texts of the templates for a method, by suffix."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is no name for a method: use a-z, 0-9 and '-' between them, a letter first"
        )
    folder = resources.files("wsolbench") / "templates"
    texts = {s: (folder / f"{_TEMPLATE[1]}{s}").read_text("utf-8") for s in _SUFFIXES}
    words = (name, _module(name), _class(name), name.replace("-", " ").capitalize())
    # the class must not hide what its own file imports, such as `Method`
    if re.search(rf"\b{words[2]}\b", texts[".py"]) or keyword.iskeyword(words[2]):
        raise InputError(f"'{name}' would name a class {words[2]}, which is taken; add a word")
    return {suffix: _filled(text, words) for suffix, text in texts.items()}


def _filled(text: str, words: tuple[str, ...]) -> str:
    for old, new in zip(_TEMPLATE, words, strict=True):
        text = text.replace(old, new)
    return text


def _check_free(name: str) -> None:
    if name in METHODS.names():
        raise InputError(f"a method '{name}' exists already; take another name")
    if name in METHODS.broken:
        raise InputError(f"a method '{name}' exists already: {METHODS.broken[name]}")


def _module(name: str) -> str:
    return name.replace("-", "_")


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
