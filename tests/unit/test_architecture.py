"""What the core must not know: which methods and datasets there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsolbench.registry import DATASETS, METHODS

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "wsolbench").rglob("*.py"))


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and value of each string that is no docstring, f-strings' parts included."""
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            # A string that stands alone documents what is around it or before it.
            if isinstance(parent, ast.Expr) or not isinstance(child, ast.Constant):
                continue
            if isinstance(child.value, str):
                yield child.lineno, child.value


#: names of plugins that are plain English; they count where they stand alone
ENGLISH = {"folder", "has"}


def plugin_names_in(source: str, names: list[str]) -> list[tuple[int, str]]:
    telling = "|".join(re.escape(name) for name in names if name not in ENGLISH)
    alone = "|".join(rf"^{re.escape(name)}$" for name in names if name in ENGLISH)
    within = rf"(?<![\w-])({telling})(?![\w-])"
    words = re.compile(f"{within}|{alone}" if alone else within, re.IGNORECASE)
    return [(line, text) for line, text in texts(ast.parse(source)) if words.search(text)]


def test_the_check_sees_names_and_leaves_docstrings_alone() -> None:
    source = '"""About ts-cam."""\nx = f"{y}: sat"\nz = ["a scam", "saturn", "ts-cam", "cam.pt"]'
    found = plugin_names_in(source, ["cam", "sat", "ts-cam"])
    assert found == [(2, ": sat"), (3, "ts-cam"), (3, "cam.pt")]
    source = 'x = ["it has one", f"{y} has ", "has", "sat has"]'
    assert plugin_names_in(source, ["has", "sat"]) == [(1, "has"), (1, "sat has")]


@pytest.mark.parametrize("file", CORE, ids=lambda f: str(f.relative_to(ROOT)))
def test_the_core_names_no_plugin(file: Path) -> None:
    names = METHODS.names() + DATASETS.names()
    assert plugin_names_in(file.read_text("utf-8"), names) == []


def test_the_core_was_looked_at() -> None:
    assert len(CORE) > 25
    assert METHODS.names()
    assert DATASETS.names()


def identifiers(source: str) -> set[str]:
    """Names that code uses, whether as they are, of a module, or by import."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
    return found


PLUGINS = sorted((ROOT / "methods").glob("*.py"))
USED_BY_METHODS = {file.name: identifiers(file.read_text("utf-8")) for file in PLUGINS}
USED_BY_CORE = set().union(*(identifiers(file.read_text("utf-8")) for file in CORE))
#: what authors of methods are told to use is there for all of them
TOLD = set(re.findall(r"\w+", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))


@pytest.mark.parametrize("file", CORE, ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_in_the_core_is_there_for_one_method_alone(file: Path) -> None:
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(file.read_text("utf-8"))
    for name in (node.name for node in tree.body if isinstance(node, kinds)):
        users = [plugin for plugin, used in USED_BY_METHODS.items() if name in used]
        assert len(users) != 1 or name in USED_BY_CORE | TOLD, f"{name}: of use to {users[0]} only"


@pytest.mark.parametrize("folder", ["wsolbench", "methods", "datasets"])
def test_no_device_is_hard_wired_and_no_option_is_a_bool_of_text(folder: str) -> None:
    for file in sorted((ROOT / folder).rglob("*.py")):
        source = file.read_text("utf-8")
        assert not re.search(r"\.cuda\(", source), f"{file}: use .to(device)"
        # argparse would take any text for true
        assert not re.search(r"\btype=bool\b", source), file
