"""Figures for papers: both files, the same bytes for the same records, errors of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from boards import Photos, make_board, make_photos
from commands import call, one_line, succeed
from PIL import Image
from records import make_result

from wsolbench.registry import DATASETS
from wsolbench.results import MEASURED, Result, save_result


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_photos(root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("board")
    make_board(folder, Photos(root))
    for shots in (1, 3, None):
        for draw in range(1 if shots is None else 2):
            save_result(few(shots, draw, 40.0 + 5 * (shots or 8) + draw), folder)
    save_result(make_result({"method": "other", "dataset": "elsewhere"}), folder)
    return folder


@pytest.fixture(autouse=True)
def photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_plugins", {**DATASETS._plugins, "photos": Photos})


def few(shots: int | None, draw: int, value: float) -> Result:
    recipe = {"shots": shots, "draw": draw, "iterations": 20}
    return make_result(recipe, figures={"gt_known_loc": value}, iterations=20)


def record(folder: Path, part: str) -> Path:
    return sorted((folder / MEASURED).glob(f"{part}*.json"))[0]


@pytest.mark.parametrize("kind", ["grid", "curve", "few-shot"])
def test_a_figure_is_written_twice_and_the_same_again(
    kind: str, folder: Path, root: Path, tmp_path: Path
) -> None:
    of = record(folder, "alpha-birds" if kind == "few-shot" else "alpha-photos")
    for out in ("a", "b"):
        done = succeed("figure", kind, of, "--out", tmp_path / out, "--data-root", root)
        assert done.out.count("wrote ") == 2
    files = sorted((tmp_path / "a").iterdir())
    assert [f.suffix for f in files] == [".pdf", ".png"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert files[0].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in files[0].read_bytes()
    with Image.open(files[1]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("part", "file", "said"),
    [
        ("alpha-photos", "table-photos-default-standard.tex", "GT-known Loc 95"),
        ("alpha-birds-*shots1", "few-shot-table-birds-default-plain-20-iterations.tex", "20 itera"),
    ],
)
def test_a_table_is_of_one_comparison_and_of_the_methods_asked_for(
    part: str, file: str, said: str, folder: Path, tmp_path: Path
) -> None:
    words = ("figure", "table", record(folder, part), "--out", tmp_path)
    succeed(*words, "--method", "alpha")
    text = (tmp_path / file).read_text("utf-8")
    assert text.count(r"\toprule") == 1
    assert said in text
    assert "beta" not in text
    if "photos" in part:
        succeed(*words)
        assert "beta" in (tmp_path / file).read_text("utf-8")


def test_the_grid_shows_the_methods_and_images_that_are_asked_for(
    folder: Path, root: Path, tmp_path: Path
) -> None:
    words = ("figure", "grid", record(folder, "alpha-photos"), "--data-root", root)
    sizes = []
    for more in (["--images", "test<i>1"], ["--images", "test<i>1", "--method", "alpha,beta"]):
        succeed(*words, "--out", tmp_path, *more)
        with Image.open(next(tmp_path.glob("*.png"))) as picture:
            sizes.append(picture.size)
    (wide, high), (narrow, same) = sizes
    assert wide > high
    assert narrow < 0.85 * wide
    assert same == pytest.approx(high, rel=0.25)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grid", "alpha-photos", "--images", "nobody"), "no map of an image 'nobody' is kept"),
        (("grid", "alpha-photos", "--method", "alpa"), "did you mean 'alpha'?"),
        (("grid", "alpha-birds-default"), "no record of this comparison keeps example maps"),
        (("curve", "alpha-birds-*shots1"), "stands in 'figure few-shot' alone"),
        (("few-shot", "alpha-photos"), "run with --shots"),
        (("few-shot", "alpha-birds", "--method", "beta"), "beta: not in this record's comparison"),
        (("curve", "alpha-photos", "--method", "other"), "other: not in this record's comparison"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    words: tuple[str, ...], said: str, folder: Path, root: Path, tmp_path: Path
) -> None:
    kind, part, *more = words
    of = record(folder, part)
    if kind == "grid" and part.startswith("alpha-birds"):
        of = record(folder, few(None, 0, 1.0).file_name().removesuffix(".json"))
    one_line(call("figure", kind, of, "--out", tmp_path, "--data-root", root, *more), 2, said)
    assert not list(tmp_path.iterdir())


def test_a_grid_without_pictures_says_how_to_get_them(folder: Path, tmp_path: Path) -> None:
    done = call("figure", "grid", record(folder, "alpha-photos"), "--data-root", tmp_path / "no")
    one_line(done, 2, "--data-root")
