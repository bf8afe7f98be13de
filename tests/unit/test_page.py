"""The page: what it says, what it leads to, and that names stay text; a browser tries the rest."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from boards import EVIL, METHODS, Photos, Private, add_few_shots, make_board, make_photos
from commands import call, succeed
from records import RECIPE, make_result

from wsolbench import few_shot, tables
from wsolbench.analysis import compare
from wsolbench.errors import InputError
from wsolbench.leaderboard import write_leaderboard
from wsolbench.ranking import full_data, groups
from wsolbench.registry import DATASETS
from wsolbench.report import figures
from wsolbench.report.charts import Scale, percent_scale, positive_scale, short_number
from wsolbench.report.page import FILE_NAME, Source, made_from, write_page
from wsolbench.results import MEASURED, load_results, read_table, save_result
from wsolbench.tables import best_two, latex

ROOT = Path(__file__).resolve().parents[2]


class Tags(HTMLParser):
    """All start tags of a page with their attributes, and all its text but scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._raw = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else self._raw

    def handle_endtag(self, tag: str) -> None:
        self._raw = "" if tag == self._raw else self._raw

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_photos(root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("board")
    make_board(folder, Photos(root))
    add_few_shots(folder, Photos(root))
    return folder


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_plugins", {**DATASETS._plugins, "photos": Photos})


def page(folder: Path, root: Path, allowed: Any = "all") -> tuple[str, list[str]]:
    board = write_leaderboard(folder, {"alpha": f"Alpha {EVIL}"})
    problems = write_page(folder, board, {"alpha": f"Alpha {EVIL}"}, Source(root, allowed))
    return (folder / FILE_NAME).read_text("utf-8"), board.problems + problems


@pytest.mark.usefixtures("photos")
def test_the_page_shows_all_and_no_name_becomes_markup(folder: Path, root: Path) -> None:
    text, problems = page(folder, root)
    assert problems == []
    tags = Tags(text)
    assert {tag for tag, _ in tags.tags} & {"img", "i", "iframe", "link", "object"} == set()
    assert len(tags.all("script")) == len(tags.all("style")) == 1
    attributes = {name for _, attributes in tags.tags for name in attributes}
    assert not [name for name in attributes if name.startswith("on")]
    shown = " ".join(tags.texts)
    assert shown.count(EVIL) > 20
    assert METHODS[2] in shown
    assert text.count("<b onclick") == 0
    assert "How many images does it take?" in shown
    for result in load_results(folder).results:
        for value in result.figures.values() if result.recipe.shots is None else ():
            assert f"{value:.2f}" in shown
        assert result.file_name() in shown


@pytest.mark.usefixtures("photos")
def test_the_page_needs_nothing_but_itself_and_the_records(folder: Path, root: Path) -> None:
    tags = Tags(page(folder, root)[0])
    outside = []
    ids = {attributes.get("id") for _, attributes in tags.tags}
    for _, attributes in tags.tags:
        for name in ("href", "src"):
            link = attributes.get(name) or "#which"
            if link.startswith("#"):
                assert link[1:] in ids
            elif not link.startswith("data:image/"):
                outside.append(link)
    assert len(outside) == len(set(outside)) == len(load_results(folder).results)
    assert all((folder / unquote(link)).is_file() for link in outside)
    (policy,) = [a for a in tags.all("meta") if a.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'; img-src data:;")


@pytest.mark.usefixtures("photos")
def test_the_gallery_puts_failures_first_and_agrees_with_the_figures(
    folder: Path, root: Path
) -> None:
    text, _ = page(folder, root)
    strips = re.findall(r'<figure class="strip" data-failing="([\d ]*)"', text)
    assert len(strips) == 10  # all test images, since there are so few
    failures = [len(strip.split()) for strip in strips]
    assert failures == sorted(failures, reverse=True)
    assert failures[0] > failures[-1]
    (group,) = groups(full_data(load_results(folder).results))
    for number, row in enumerate(group.rows):
        wrong = sum(str(number) in strip.split() for strip in strips)
        assert 100 - 10 * wrong == pytest.approx(row.first.figures["gt_known_loc"])


@pytest.mark.usefixtures("photos")
def test_dead_maps_and_what_was_seen_have_columns_of_their_own(folder: Path, root: Path) -> None:
    text, _ = page(folder, root)
    assert len(re.findall(r"IoU 0\.00[^<]*, dead map", text)) == 1
    cells = re.findall(r'<td[^>]*data-label="(dead maps|supervision|pre-training)">([^<]*)<', text)
    assert Counter(name for name, _ in cells) == dict.fromkeys(
        ("dead maps", "supervision", "pre-training"), len(METHODS)
    )
    assert sorted(value for name, value in cells if name == "dead maps") == ["0", "0", "1"]
    assert "no map kept" not in text


def test_class_scores_of_another_run_stand_in_a_column_of_their_own(
    tmp_path: Path, root: Path
) -> None:
    other = {**RECIPE, "method": "beta"}
    save_result(make_result(), tmp_path)
    save_result(make_result({"classifier": other}, figures={"top1_loc": 12.5}), tmp_path)
    cells = re.findall(r'data-v="([\d.]*)" data-label="(Top-1 Loc[^"]*)"', page(tmp_path, root)[0])
    assert sorted(cells) == [
        *(("", "Top-1 Loc"), ("", "Top-1 Loc, external classifier")),
        *(("12.5", "Top-1 Loc, external classifier"), ("70.0", "Top-1 Loc")),
    ]


@pytest.mark.parametrize("name", ["ilsvrc", "birds"])
def test_a_published_curve_is_drawn_beside_runs_of_its_dataset_alone(
    name: str, tmp_path: Path, root: Path
) -> None:
    chart = [make_result({"dataset": name, "shots": k}, dataset={"name": name}) for k in (1, 3)]
    for result in chart:
        save_result(result, tmp_path)
    text, _ = page(tmp_path, root, "none")
    assert text.count('class="curve reference"') == text.count("SAT, DeiT-S, as published")
    assert text.count("SAT, DeiT-S, as published") == (name == "ilsvrc")
    (found,) = few_shot.charts(load_results(tmp_path).results)
    legend = figures._few_shot(found, {}).axes[0].get_legend_handles_labels()[1]
    assert ("SAT, DeiT-S, as published" in legend) == (name == "ilsvrc")


def test_a_damaged_table_is_named_even_where_another_seed_has_none(
    root: Path, tmp_path: Path
) -> None:
    first, second, *_ = make_board(tmp_path, Photos(root))
    save_result(second, tmp_path)  # without its table
    saved = tmp_path / MEASURED / first.file_name()
    digest = json.loads(saved.read_text("utf-8"))["table"]["sha256"]
    saved.with_suffix(f".{digest[:10]}.npz").write_bytes(b"x")
    (problem,) = write_leaderboard(tmp_path, {}).problems
    assert saved.stem in problem


def test_only_records_of_one_protocol_and_data_are_compared(root: Path, tmp_path: Path) -> None:
    make_board(tmp_path, Photos(root))
    first, _, other, *_ = load_results(tmp_path).results
    mine, table = tmp_path / MEASURED / first.file_name(), read_table(other, tmp_path)
    stamp = {"protocol": first.protocol.model_copy(update={"name": "other"})}
    data = {"dataset": first.dataset.model_copy(update={"fingerprint": "0" * 12})}
    for change, said in ((stamp, "under other protocols"), (data, "of other images")):
        theirs = save_result(other.model_copy(update=change), tmp_path, table)
        with pytest.raises(InputError, match=said):
            compare(mine, theirs, {})
    chosen = other.model_copy(update={"oracle": ("gt_known_loc",)})
    theirs = save_result(chosen, tmp_path, table)
    assert "GT-known Loc (oracle)" in compare(mine, theirs, {})
    copy = Path(shutil.copy(mine, mine.with_suffix(".bak")))
    assert "seeds of one row" not in compare(copy, theirs, {})


def test_comparisons_that_differ_in_conditions_are_told_apart(tmp_path: Path, root: Path) -> None:
    for epochs in (5, 15):
        for method in ("alpha", "beta"):
            save_result(make_result({"method": method, "epochs": epochs}), tmp_path)
    text, _ = page(tmp_path, root, "none")
    for epochs in (5, 15):
        assert f"Birds: default, Plain ({epochs} epochs)</option>" in text
    lines = list(csv.DictReader(io.StringIO(tables.csv(load_results(tmp_path).results, {}))))
    assert [line["group"] for line in lines] == ["1", "1", "2", "2"]
    files = [make_result({"method": "alpha", "epochs": n}).file_name() for n in (5, 15)]
    done = [
        succeed("figure", "curve", tmp_path / MEASURED / file, "--out", tmp_path / "out").out
        for file in files
    ]
    assert len(set(done)) == 2


def test_no_two_of_many_methods_look_alike(tmp_path: Path, root: Path) -> None:
    for n in range(20):
        save_result(make_result({"method": f"method{n:02}"}), tmp_path)
    text, _ = page(tmp_path, root, "none")
    looks = re.findall(r'<svg class="swatch (c\d d\d)"[^>]*>.*?</svg> method\d\d', text)
    assert len(set(looks)) == 20


@pytest.mark.usefixtures("photos")
def test_the_verdict_is_that_of_the_comparison(folder: Path, root: Path) -> None:
    text, _ = page(folder, root)
    (group,) = groups(full_data(load_results(folder).results))
    files = [folder / MEASURED / row.first.file_name() for row in group.rows[:2]]
    said = compare(files[0], files[1], {}).splitlines()
    line = next(line for line in said if line.startswith("GT-known"))
    ahead, low, high = re.findall(r"[-+]?\d+\.\d+", line)[2:5]
    (verdict,) = re.findall(r'<p class="verdict">(.*?)</p>', text)
    for value in (ahead, low, high):
        assert f"{float(value):.1f}" in verdict
    assert ("is ahead of" in verdict) == ("is ahead by" in said[-1])


def test_pictures_are_shown_only_where_they_may_be_and_are_the_right_ones(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private = {**DATASETS._plugins, "photos": Private}
    monkeypatch.setattr(DATASETS, "_plugins", private)
    cases = [
        (root, "all", "data:image/jpeg", "terms may not let you hand it on"),
        (root, "free", "", "their terms keep them private"),
        (root, "none", "", "as asked"),
    ]
    for place, allowed, picture, said in cases:
        text, _ = page(folder, place, allowed)
        assert ("data:image/jpeg" in text) == bool(picture)
        assert said in text
        assert text.count("data:image/png") == 10 * len(METHODS)  # maps may always be shown
    monkeypatch.setattr(Private, "fingerprint", lambda self: "of other data")
    assert "is not that of the records" in page(folder, root)[0]
    monkeypatch.setattr(DATASETS, "_plugins", {})
    assert "Without the pictures of" in page(folder, tmp_path)[0]


@pytest.mark.usefixtures("photos")
def test_bad_files_are_named_and_the_rest_is_shown(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = make_board(tmp_path, Photos(root))
    measured = tmp_path / MEASURED
    whole = (measured / results[0].file_name()).read_text("utf-8")
    (measured / "<b>truncated.json").write_text(whole[: len(whole) // 2])
    (measured / "foreign.json").write_text(json.dumps({"name": "else"}))
    (measured / "list.json").write_text("[1, 2]")
    (measured / "empty.json").write_bytes(b"")
    (measured / "binary.json").write_bytes(b"\xff\xfe\x00")
    (measured / "second.json").write_text(whole)
    (measured / "folder.json").mkdir()
    (measured / "nowhere.json").symlink_to("gone")
    for npz in measured.glob(f"{results[-1].file_name().removesuffix('.json')}.*.npz"):
        npz.write_bytes(npz.read_bytes()[:-1])
    done = succeed("table", "--results", tmp_path, "--data-root", root)
    shown = " ".join(Tags((tmp_path / FILE_NAME).read_text("utf-8")).texts)
    bad = ("<b>truncated", "foreign", "list", "empty", "binary", "second", "folder", "nowhere")
    for name in (*bad, results[-1].file_name().removesuffix(".json")):
        assert name in shown, name
        assert name in done.err, name
    assert "left out, the same run as" in shown
    assert "Traceback" not in done.err
    for result in results:
        assert f"{result.figures['gt_known_loc']:.2f}" in shown


def test_an_empty_folder_makes_a_page_and_no_folder_an_error(tmp_path: Path) -> None:
    succeed("table", "--results", tmp_path)
    assert "No runs yet." in (tmp_path / FILE_NAME).read_text("utf-8")
    assert call("table", "--results", tmp_path / "none").code == 2


@pytest.mark.usefixtures("photos")
def test_the_same_records_make_the_same_page(folder: Path, root: Path) -> None:
    assert page(folder, root)[0] == page(folder, root)[0]
    assert f'content="{made_from(folder)}"' in page(folder, root)[0]


def test_the_committed_page_is_of_the_committed_records() -> None:
    text = (ROOT / "results" / FILE_NAME).read_text("utf-8")
    assert made_from(ROOT / "results") in text, "run `make readme`"
    assert "whose terms may not let you hand it on" not in text, "run `make readme`"
    assert len(text) < 3 * 2**20


# ------------------------------------------------------------------------------- tables and charts


def test_latex_marks_the_best_and_the_second(folder: Path) -> None:
    results = full_data(load_results(folder).results)
    (group,) = groups(results)
    for figure in group.figures:
        means = [round(row.mean(figure) or 0, 2) for row in group.rows]
        order = sorted(set(means), reverse=True)
        expected = {n: order.index(m) for n, m in enumerate(means) if order.index(m) < 2}
        assert best_two(group, figure) == expected
    lines = [line for line in latex(results, {}).splitlines() if line.endswith(r"\\")]
    mean, std = group.rows[0].mean("gt_known_loc"), group.rows[0].std("gt_known_loc")
    assert rf"\textbf{{{mean:.2f} $\pm$ {std:.2f}}}" in lines[1]
    assert r"\underline{" in lines[2]


@pytest.mark.parametrize("values", [[50.0], [0.0, 100.0], [93.9, 94.2], [12.0, 71.0], [100.0]])
def test_a_scale_of_percentages_holds_its_values(values: list[float]) -> None:
    scale = percent_scale(values)
    assert all(0 <= scale.at(value) <= 100 for value in values)
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 11
    assert (ticks[0], ticks[-1]) == (scale.low, scale.high)
    assert Scale(0, 1).ticks() == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_scale_of_costs_is_logarithmic_and_its_numbers_short() -> None:
    scale = positive_scale([1e6, 1e8])
    assert scale.at(1e7) == pytest.approx(50)
    assert all(0 <= scale.at(t) <= 100 for t in scale.ticks())
    assert [short_number(v) for v in (0.5, 41.23, 2851020, 79.4e6, 2e9)] == [
        *("0.5", "41.2", "2.85M", "79.4M", "2G")
    ]
