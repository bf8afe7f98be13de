"""A new method's two files: clean as written, and never in place of others."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from wsolbench import scaffold
from wsolbench.errors import InputError
from wsolbench.registry import METHODS
from wsolbench.scaffold import how_to_find, new_method

ROOT = Path(__file__).resolve().parents[2]


def ruff(*arguments: str, stdin: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", "methods/written.py", "-"],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("name", ["x", "my-method", "a-method-with-a-name-of-forty-characters"])
def test_the_file_is_clean_as_written(tmp_path: Path, name: str) -> None:
    source, recipe = new_method(name, tmp_path / "methods")
    stem = name.replace("-", "_")
    assert (source.name, recipe.name) == (f"{stem}.py", f"{stem}.yaml")
    text = source.read_text("utf-8")
    assert ruff("check", "--quiet", stdin=text) == ""
    assert ruff("format", "--check", "--quiet", stdin=text) == ""
    assert f'@register_method("{name}")' in text
    assert f"wsolbench check {name}\n" in text
    written = ast.walk(ast.parse(text))
    functions = {node.name for node in written if isinstance(node, ast.FunctionDef)}
    assert functions == {"__init__", "training_step", "localize"}


def test_nothing_of_the_template_is_left(tmp_path: Path) -> None:
    for file in new_method("other", tmp_path):
        text = file.read_text("utf-8").lower()
        assert not any(
            word in text for word in ("new-method", "new_method", "newmethod", "new method")
        )


@pytest.mark.parametrize(
    "name", ["", "Mine", "2x", "a_b", "a.b", "a b", "-a", "a-", "a--b", "../a", "ä"]
)
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name for a method: use a-z, 0-9 and '-'"):
        new_method(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["method", "batch", "tensor", "none", "new-method"])
def test_a_class_must_not_hide_another(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="which is taken; add a word"):
        new_method(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="exists already; take another name"):
        new_method(METHODS.names()[0], tmp_path)
    monkeypatch.setattr(METHODS, "_broken", {"half-done": "half_done.py: SyntaxError"})
    with pytest.raises(InputError, match=r"exists already: half_done\.py: SyntaxError"):
        new_method("half-done", tmp_path)


@pytest.mark.parametrize("there", ["my_method.py", "my_method.yaml"])
def test_a_file_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match=f"{there}' exists already; take another name or remove"):
        new_method("my-method", tmp_path)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [(there, "mine")]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "methods").write_text("mine")
    with pytest.raises(InputError, match="is a file, not a folder"):
        new_method("my-method", tmp_path / "methods")


@pytest.mark.parametrize("inside", [True, False])
def test_without_a_folder_it_goes_to_the_checkout_or_else_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "checkout" if inside else None
    monkeypatch.setattr(scaffold, "checkout", lambda: checkout)
    files = new_method("my-method")
    folder = (checkout or Path()) / "methods"
    assert files == [folder / "my_method.py", folder / "my_method.yaml"]
    assert all(file.is_file() for file in files)


def test_it_says_how_the_method_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSOLBENCH_PATH", raising=False)
    check = "wsolbench check mine"
    assert how_to_find(ROOT / "methods" / "mine.py", "mine") == f"next: {check}"
    assert "entry point" in how_to_find(tmp_path / "mine.py", "mine")
    file = tmp_path / "methods" / "mine.py"
    assert how_to_find(file, "mine") == f"next: add {tmp_path} to WSOLBENCH_PATH, then {check}"
    monkeypatch.setenv("WSOLBENCH_PATH", str(tmp_path))
    assert how_to_find(file, "mine") == f"next: {check}"
