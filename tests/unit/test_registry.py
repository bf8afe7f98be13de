"""The registry on plugin files made for the purpose."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import wsolbench
from wsolbench import registry
from wsolbench.errors import InputError
from wsolbench.registry import DuplicateError, Registry, resource_text

PACKAGE = "registry_under_test"
#: what a plugin file needs to find the registry of the running test
HEAD = f"import {PACKAGE}_host as host\n"

Write = Callable[..., Path]


def plugin(name: str, cls: str = "Plugin") -> str:
    return f"{HEAD}class {cls}: pass\nhost.REGISTRY.register({name!r}, {cls})\n"


@pytest.fixture
def reg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[type]]:
    """Return a registry over an empty namespace package, which plugin files can import."""
    made: Registry[type] = Registry("method", PACKAGE)
    host = type(sys)(f"{PACKAGE}_host")
    host.__dict__["REGISTRY"] = made
    monkeypatch.setitem(sys.modules, host.__name__, host)
    monkeypatch.delenv("WSOLBENCH_PATH", raising=False)
    yield made
    for module in [m for m in sys.modules if m.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a file of the package, in a root that is searched."""

    def write(stem: str, text: str, root: str = "root", suffix: str = ".py") -> Path:
        file = tmp_path / root / PACKAGE / (stem + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        if str(tmp_path / root) not in sys.path:
            monkeypatch.syspath_prepend(tmp_path / root)
        return file

    return write


def add_entry_point(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entries = EntryPoints([EntryPoint(name, value, PACKAGE)])
    monkeypatch.setattr(registry, "entry_points", lambda group: entries.select(group=group))


def test_names_are_sorted_and_come_from_every_folder(reg: Registry[type], write: Write) -> None:
    write("two_words", plugin("two-words"))
    write("another", plugin("another"), root="elsewhere")
    assert reg.names() == ["another", "two-words"]
    assert reg.get("two-words").__module__ == f"{PACKAGE}.two_words"
    assert reg.broken == {}


def test_nothing_is_found_where_there_is_no_folder(reg: Registry[type]) -> None:
    assert reg.names() == []
    with pytest.raises(InputError, match="unknown method 'x'; known: none"):
        reg.get("x")


def test_one_file_may_hold_several_plugins(reg: Registry[type], write: Write) -> None:
    write("pair", plugin("pair") + plugin("pair-small", "Small"))
    assert reg.names() == ["pair", "pair-small"]


def test_an_unknown_name_gets_the_closest_one(reg: Registry[type], write: Write) -> None:
    write("two_words", plugin("two-words"))
    with pytest.raises(InputError, match="unknown method 'two_words'; did you mean 'two-words'"):
        reg.get("two_words")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('first line\\nsecond')", "RuntimeError: first line$"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'$"),
        ("def (", "SyntaxError: invalid syntax"),
        ("raise SystemExit", "SystemExit$"),
        (plugin("Bad Name"), "ValueError: 'Bad Name' is no method name"),
        (plugin("half-way") + "assert False", "AssertionError$"),
        ("", "registers no method"),
    ],
)
def test_a_broken_file_costs_its_own_name_only(
    reg: Registry[type], write: Write, text: str, said: str
) -> None:
    write("fine", plugin("fine"))
    file = write("half_way", text)
    assert reg.names() == ["fine"]
    assert list(reg.broken) == ["half-way"]
    with pytest.raises(InputError, match=said) as raised:
        reg.get("half-way")
    assert str(raised.value).startswith(f"method 'half-way' cannot be loaded: {file}: ")
    assert "\n" not in str(raised.value)


def test_files_with_an_underscore_are_helpers(reg: Registry[type], write: Write) -> None:
    write("_helper", "raise RuntimeError")
    assert reg.names() == []
    assert reg.broken == {}


def test_two_files_that_claim_one_name_are_both_named(reg: Registry[type], write: Write) -> None:
    files = write("one", plugin("same")), write("two", plugin("same"))
    for _ in range(2):  # the error does not go away when the question is repeated
        with pytest.raises(DuplicateError) as raised:
            reg.names()
        assert str(raised.value) == f"two methods are named 'same': {files[0]} and {files[1]}"
        assert raised.value.exit_code == 2


def test_a_file_may_not_hide_behind_one_of_the_same_name(reg: Registry[type], write: Write) -> None:
    files = write("one", plugin("one")), write("one", plugin("other"), root="elsewhere")
    with pytest.raises(DuplicateError) as raised:
        reg.get("one")
    assert all(str(file) in str(raised.value) for file in files)


def test_a_folder_that_is_searched_twice_counts_once(
    reg: Registry[type], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("one", plugin("one"))
    (tmp_path / "link").symlink_to(tmp_path / "root")
    monkeypatch.syspath_prepend(tmp_path / "link")
    assert reg.names() == ["one"]


def test_a_reloaded_module_replaces_its_classes(reg: Registry[type]) -> None:
    first, second = (type("Same", (), {"__module__": __name__}) for _ in range(2))
    reg.register("same", first)
    reg.register("same", second)
    assert reg.get("same") is second


def test_entry_points_are_found(
    reg: Registry[type], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("own", plugin("own"))
    (tmp_path / "root" / "third_party_plugin.py").write_text(plugin("theirs"), "utf-8")
    add_entry_point(monkeypatch, "theirs", "third_party_plugin:Plugin")
    assert reg.names() == ["own", "theirs"]
    del sys.modules["third_party_plugin"]


def test_a_broken_entry_point_breaks_no_other(
    reg: Registry[type], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("own", plugin("own"))
    add_entry_point(monkeypatch, "theirs", "no_such_module")
    assert reg.names() == ["own"]
    with pytest.raises(InputError, match="No module named 'no_such_module'"):
        reg.get("theirs")


def test_text_beside_a_plugin(reg: Registry[type], write: Write) -> None:
    write("one", plugin("one"))
    write("one", "a: 1\n", suffix=".yaml")
    cls = reg.get("one")
    assert resource_text(cls) == "a: 1\n"
    assert resource_text(sys.modules[cls.__module__]) == "a: 1\n"
    assert resource_text(cls, ".json") is None


def test_user_folders_are_absolute_and_empty_entries_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSOLBENCH_PATH", os.pathsep.join(["", "mine", " ", "/abs"]))
    assert wsolbench.user_folders() == [tmp_path / "mine", Path("/abs")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not a folder"),
        ("sub/file", "has no methods/ or datasets/"),
        ("methods/__init__.py", "__init__.py must not exist"),
    ],
)
def test_a_useless_user_folder_is_an_error(
    reg: Registry[type],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    said: str,
) -> None:
    user = tmp_path / "user"
    if content is not None:
        (user / content).parent.mkdir(parents=True)
        (user / content).touch()
    monkeypatch.setenv("WSOLBENCH_PATH", str(user))
    with pytest.raises(InputError, match=said) as raised:
        reg.names()
    assert str(raised.value).startswith(f"WSOLBENCH_PATH: {user}")
