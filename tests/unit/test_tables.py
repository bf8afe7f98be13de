"""Tables: what is averaged and ranked together, how names are escaped, and the leaderboard page."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_result

from wsolbench.columns import FIGURE_TITLES
from wsolbench.errors import InputError
from wsolbench.leaderboard import (
    FILE_NAME,
    leaderboard,
    published_table,
    read_reported,
    write_leaderboard,
)
from wsolbench.protocol import FIGURES
from wsolbench.ranking import groups
from wsolbench.results import Result, save_result
from wsolbench.tables import (
    csv,
    curves_csv,
    latex,
    latex_text,
    markdown,
    markdown_table,
    markdown_text,
    terminal,
)

TITLES = {"alpha": "Alpha", "beta": "Beta", "gamma": "Gamma"}
ODD = "a|b_c <script>alert(1)</script> *x* `y` [z](u) & 50% #1 ~ ^ {} \\ $"


def scored(method: str, value: float | None, seed: int = 0, **changes: Any) -> Result:
    figures = {} if value is None else {"gt_known_loc": value}
    return make_result({"method": method, "seed": seed}, **{"figures": figures, **changes})


def random_results(seed: int = 0) -> list[Result]:
    draw = np.random.default_rng(seed)
    return [
        make_result(
            {"method": method, "seed": s, "name": regime},
            figures={name: float(draw.uniform(0, 100)) for name in FIGURES},
            threshold=float(draw.uniform(0, 1)),
        )
        for method in TITLES
        for regime in ("default", "released")
        for s in (6, 7, 8)
    ]


def table_rows(page: str) -> list[list[str]]:
    """Cells of all lines of Markdown tables, headings included."""
    lines = [line for line in page.splitlines() if line.startswith("|") and "|:--" not in line]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# ---------------------------------------------------------------------- grouping and ranking


def test_means_and_deviations_are_those_of_numpy() -> None:
    results = random_results()
    seen = 0
    for group in groups(results):
        for row in group.rows:
            for figure in FIGURE_TITLES:
                values = [r.figures[figure] for r in row.results]
                assert row.mean(figure) == pytest.approx(np.mean(values), rel=1e-12)
                assert row.std(figure) == pytest.approx(np.std(values, ddof=1), rel=1e-12)
                seen += 1
            thresholds = [r.threshold for r in row.results if r.threshold is not None]
            assert row.threshold() == pytest.approx(np.mean(thresholds), rel=1e-12)
    assert seen == 3 * 2 * len(FIGURES)


@pytest.mark.parametrize(
    "other",
    [
        make_result({"seed": 1, "name": "released"}),
        make_result({"seed": 1, "name": "declared"}),
        make_result({"seed": 1}, protocol={"name": "other"}),
        make_result({"seed": 1}, protocol={"version": 2}),
        make_result({"seed": 1}, dataset={"fingerprint": "ba9876543210"}),
        make_result({"seed": 1, "dataset": "cars"}, dataset={"name": "cars"}),
        make_result({"seed": 1, "epochs": 14}),
        make_result({"seed": 1, "batch_size": 31}),
        make_result({"seed": 1, "holdout": 4}),
        make_result({"seed": 1, "image_size": 448}),
        make_result({"seed": 1, "resize": 288}),
        make_result({"seed": 1, "flip": 0.0}),
        make_result({"seed": 1, "drop_last": True}),
    ],
)
def test_runs_under_other_conditions_are_never_ranked_together(other: Result) -> None:
    made = groups([make_result(), other])
    assert len(made) == 2
    assert [[row.rank for row in group.rows] for group in made] == [[1], [1]]
    for text in (markdown([make_result(), other], TITLES), latex([make_result(), other], TITLES)):
        assert "±" not in text
        assert r"\pm" not in text


@pytest.mark.parametrize(
    "other",
    [
        make_result({"seed": 1}, environment={"device_type": "cuda"}),
        make_result({"seed": 1, "precision": "bf16"}),
        make_result({"seed": 1, "backbone": "another"}),
        make_result({"seed": 1, "options": {"blocks": 4}}),
        make_result({"seed": 1, "optim": {"name": "adamw", "lr": 2e-4}}),
        make_result({"seed": 1, "method": "beta"}),
        make_result({"seed": 1}, weights={"sha256": "cd" * 32}),
    ],
)
def test_other_recipes_devices_and_precisions_are_never_averaged(other: Result) -> None:
    (group,) = groups([make_result(), other])
    assert [len(row.results) for row in group.rows] == [1, 1]
    assert all(row.std("gt_known_loc") is None for row in group.rows)


def test_released_runs_rank_together_whatever_their_epochs() -> None:
    recipes = [{"name": "released", "epochs": n, "batch_size": n} for n in (1, 2)]
    (group,) = groups([make_result(recipe) for recipe in recipes])
    assert len(group.rows) == 2


def test_ranks_are_by_the_mean_and_ties_share_one() -> None:
    results = [
        scored("alpha", 70.0, seed=0),
        scored("alpha", 80.0, seed=1),
        scored("beta", 75.001),
        scored("gamma", 74.98),
        scored("delta", 90.0),
        scored("none", None),
    ]
    (group,) = groups(results)
    ranked = [(row.rank, row.first.recipe.method) for row in group.rows]
    assert ranked == [(1, "delta"), (2, "alpha"), (2, "beta"), (4, "gamma"), (None, "none")]


@pytest.mark.parametrize(
    ("names", "by"),
    [
        (FIGURES, "gt_known_loc"),
        (("pxap", "max_box_acc", "max_box_acc_v2", "top1_cls"), "max_box_acc_v2"),
        (("pxap", "max_box_acc"), "max_box_acc"),
        (("top1_cls", "pxap"), "pxap"),
        (("top1_cls",), None),
    ],
)
def test_the_ranking_figure_is_the_first_that_the_protocol_has(
    names: tuple[str, ...], by: str | None
) -> None:
    low = make_result({"method": "alpha"}, figures={n: 60.0 if n == by else 50 for n in names})
    high = make_result({"method": "beta"}, figures={n: 40.0 if n == by else 99 for n in names})
    (group,) = groups([high, low])
    assert group.ranked_by == by
    best = [row.first.recipe.method for row in group.rows if row.rank == 1]
    assert best == (["alpha"] if by else [])


def untrained(value: float, **recipe: Any) -> Result:
    """A record of a method that trains nothing."""
    fields = {"method": "box", "epochs": 0, "optim": None, "backbone": "none", "pretrained": False}
    return make_result(
        {**fields, "schedule": {}, "options": {}, **recipe},
        figures={"gt_known_loc": value},
        weights=None,
        pretraining=None,
        supervision="none",
    )


def test_a_second_ranking_stands_beside_its_figure() -> None:
    values = {"alpha": (80.0, 50.0), "beta": (70.0, 60.0), "gamma": (60.0, 60.0)}
    results = [
        scored(method, None, figures={"gt_known_loc": first, "max_box_acc_v2": second})
        for method, (first, second) in values.items()
    ]
    control = {"method": "alpha", "train_labels": "shuffled"}
    results.append(make_result(control, figures={"gt_known_loc": 99.0, "max_box_acc_v2": 99.0}))
    page = markdown(results, TITLES)
    heads, *rows = table_rows(page)
    places = [(row[0], row[heads.index("rank by MaxBoxAccV2")]) for row in rows]
    assert places == [("1", "3"), ("2", "1"), ("3", "1"), ("-", "-")]
    assert "Ranked by GT-known Loc, and by MaxBoxAccV2 beside it." in page
    alone = [scored("alpha", None, figures={"max_box_acc_v2": 3.0})]
    assert "rank by" not in markdown(alone, TITLES)


def test_rows_and_comparisons_that_look_alike_are_told_apart() -> None:
    results = [
        make_result({"options": {"blocks": blocks}, "epochs": epochs})
        for blocks in (2, 3)
        for epochs in (5, 15)
    ]
    for text in (markdown(results, TITLES), latex(results, TITLES)):
        for result in results:
            assert f"Alpha, recipe {result.recipe_key}" in text
        for epochs in (5, 15):
            assert f"Plain, {epochs} epochs" in text


def test_a_method_without_training_is_ranked_in_every_group_of_its_kind() -> None:
    runs = [
        scored("alpha", 70.0),
        make_result({"method": "beta", "epochs": 5}, figures={"gt_known_loc": 50.0}),
        make_result({"method": "beta", "name": "released"}, figures={"gt_known_loc": 80.0}),
        make_result({"method": "beta"}, protocol={"name": "other"}),
        make_result({"method": "beta", "holdout": 4}),
        make_result({"method": "beta", "image_size": 448}),
    ]
    made = groups([untrained(60.0), *runs])
    ranked = [[(row.first.recipe.method, row.rank) for row in group.rows] for group in made]
    assert sorted(ranked) == [
        [("alpha", 1), ("box", 2)],
        [("beta", 1)],
        [("beta", 1)],
        [("beta", 1)],
        [("beta", 1)],
        [("box", 1), ("beta", 2)],
    ]
    page = markdown([untrained(60.0), runs[1]], TITLES)
    heading, box, _ = table_rows(page)
    cells = dict(zip(heading, box, strict=True))
    assert cells["backbone"] == "none"
    assert {cells[name] for name in ("pre-training", "epochs", "batch")} == {"-"}
    assert "Here: 5 epochs" in page


def test_methods_without_training_stand_together_where_they_stand_alone() -> None:
    alone = [untrained(60.0), untrained(50.0, method="other", pretrained=True, batch_size=7)]
    (group,) = groups(alone)
    assert len(group.rows) == 2
    assert "Here: nothing is trained, 5 hold-out images a class" in markdown(alone, TITLES)


def test_weights_from_elsewhere_are_not_ranked_with_what_was_trained_here() -> None:
    recipe = {"epochs": 0, "weights": "0123456789", "pretrained": False}
    made = groups([make_result(), make_result(recipe), make_result({**recipe, "weights": "ab"})])
    assert sorted(len(group.rows) for group in made) == [1, 2]


def test_a_control_is_shown_without_a_rank() -> None:
    control = make_result(
        {"method": "alpha", "train_labels": "shuffled"},
        figures={"gt_known_loc": 99.0},
        supervision="shuffled labels",
    )
    (group,) = groups([control, scored("alpha", 70.0), scored("beta", 60.0)])
    shown = [(r.first.recipe.method, r.rank, r.first.supervision) for r in group.rows]
    assert shown == [
        ("alpha", 1, "labels"),
        ("beta", 2, "labels"),
        ("alpha", None, "shuffled labels"),
    ]
    assert "Alpha, " in (text := terminal([control], TITLES))
    assert text.splitlines()[-1].startswith("-       Alpha, shuffled labels")


def test_a_figure_that_one_seed_lacks_has_no_mean() -> None:
    first = make_result(figures={"gt_known_loc": 50.0})
    (group,) = groups([first, make_result({"seed": 1}, figures={"top1_loc": 50.0})])
    assert group.rows[0].mean("gt_known_loc") is None
    assert group.rows[0].std("top1_loc") is None


@settings(deadline=None)
@given(st.permutations(random_results()))
def test_the_order_of_records_does_not_matter(results: list[Result]) -> None:
    assert groups(results) == groups(random_results())


# ----------------------------------------------------------------------------------- renderers


def test_a_row_says_what_was_run_and_how_it_did() -> None:
    results = [scored("alpha", v, seed=s) for s, v in ((6, 95.0), (7, 96.0), (8, 97.5))]
    heading, row = table_rows(markdown(results, TITLES))
    assert dict(zip(heading, row, strict=True)) == {
        "rank": "1",
        "method": "Alpha",
        "backbone": "vit_tiny_patch16_224.augreg_in21k",
        "pre-training": "ImageNet-21k (augreg_in21k)",
        "supervision": "labels",
        "precision, device": "fp32, cpu",
        "epochs": "15",
        "batch": "32",
        "seeds": "3",
        "GT-known Loc": "96.17 ± 1.26",
        "threshold (held-out)": "0.350",
    }


def test_a_single_seed_has_no_spread_and_an_absent_figure_no_column() -> None:
    page = markdown([scored("alpha", 95.0)], TITLES)
    assert "95.00 |" in page
    assert "±" not in page
    assert "Top-1 Loc" not in page


def test_oracle_columns_say_so_everywhere() -> None:
    result = make_result(
        figures={"gt_known_loc": 50.0, "max_box_acc": 60.0},
        oracle=["max_box_acc"],
        threshold_source="oracle",
    )
    page = markdown([result], TITLES)
    assert {"GT-known Loc", "MaxBoxAcc (oracle)", "threshold (oracle)"} <= set(table_rows(page)[0])
    assert "MaxBoxAcc (oracle)" in latex([result], TITLES)
    assert pd.read_csv(io.StringIO(csv([result], TITLES))).oracle.tolist() == ["max_box_acc"]


def test_a_protocol_without_threshold_has_no_such_column() -> None:
    result = make_result(threshold=None, threshold_source="none")
    assert "threshold (" not in markdown([result], TITLES)


def test_the_heading_says_what_the_rows_share() -> None:
    page = markdown([make_result()], TITLES)
    assert "### Birds (30 classes, 894 test images): regime default, Plain\n" in page
    assert "15 epochs, batch size 32, 5 hold-out images a class" in page
    assert "Ranked by GT-known Loc." in page
    assert "fingerprint 0123456789ab" in page


def test_each_row_has_one_command_for_all_its_seeds() -> None:
    command = "wsolbench run --method alpha --dataset birds --seed {} --set epochs=15"
    results = [
        *(make_result({"seed": s}, command=command.format(s)) for s in (8, 6)),
        make_result({"seed": 7}, command=command.format(7), environment={"dirty": True}),
        make_result({"method": "beta"}, command="wsolbench run --method beta --dataset birds"),
        make_result({"method": "gamma", "seed": 3}, command="wsolbench run --seed=3 -x"),
    ]
    page = markdown(results, TITLES)
    block = page.split("```sh\n")[1].split("\n```")[0].splitlines()
    assert [line for line in block if not line.startswith("#")] == [
        "wsolbench run --method alpha --dataset birds --set epochs=15 --seed 6,7,8",
        "wsolbench run --method beta --dataset birds --seed 0",
        "wsolbench run -x --seed 3",
    ]
    assert block[0].startswith("# Alpha; ")
    assert "commit c0ffeec0ff, c0ffeec0ff with changes" in block[0]


def test_seeds_made_by_different_commands_keep_them() -> None:
    results = [make_result({"seed": s}, command=f"run {s // 2} --seed {s}") for s in range(3)]
    page = markdown(results, TITLES)
    assert "\nrun 0 --seed 0,1\nrun 1 --seed 2\n```" in page


def odd_result() -> Result:
    return make_result(
        {"method": "odd", "backbone": ODD},
        dataset={"title": ODD},
        protocol={"name": "p", "version": 1, "title": ODD},
        pretraining=ODD,
        supervision="a\nb\r\n| c",
    )


def test_odd_names_stay_text_in_markdown() -> None:
    page = markdown([odd_result()], {"odd": ODD})
    text = page.split("<details>")[0]
    assert "<script" not in text
    assert {len(row) for row in table_rows(page)} == {len(table_rows(page)[0])}
    assert len(table_rows(page)) == 2
    assert r"a\|b_c &lt;script&gt;" in text
    assert r"\*x\* \`y\` \[z\](u) &amp; 50% \#1" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("vit_tiny_patch16", "vit_tiny_patch16"),
        ("_a_ __b__ c_", r"\_a\_ \_\_b\_\_ c\_"),
        ("two\nlines\t|", r"two lines \|"),
        ("\\|", r"\\\|"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_markdown_escapes(text: str, escaped: str) -> None:
    assert markdown_text(text) == escaped


@settings(deadline=None)
@given(st.lists(st.text(), min_size=3, max_size=3))
def test_no_cell_breaks_a_markdown_table(cells: list[str]) -> None:
    table = markdown_table(["a", "b", "c"], [cells], numbers=["c"])
    assert len(table.split("\n")) == 3
    # a bar separates cells where an even number of backslashes stands before it
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.split("\n")]
    assert bars == [4, 4, 4]
    assert "<" not in table


def test_odd_names_stay_text_in_latex() -> None:
    text = latex([odd_result()], {"odd": ODD})
    assert "<script" not in text
    (row,) = [line for line in text.splitlines() if line.endswith(r"\\") and "rank" not in line]
    heading = next(line for line in text.splitlines() if line.startswith("rank"))
    cells = re.compile(r"(?<!\\)&")
    assert len(cells.findall(row)) == len(cells.findall(heading))
    assert r"a\textbar{}b\_c \textless{}script\textgreater{}" in row
    assert r"\& 50\% \#1 \textasciitilde{} \textasciicircum{} \{\} \textbackslash{} \$" in row


def test_latex_text_leaves_nothing_special() -> None:
    assert latex_text("1 ± 2") == r"1 $\pm$ 2"
    bare = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", latex_text(ODD))
    assert not set("&%$#_{}~^\\<>|") & set(bare)


def test_latex_has_as_many_columns_as_it_declares() -> None:
    text = latex(random_results(), TITLES)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    for table in text.split("\n\n"):
        declared = re.findall(r"\\begin\{tabular\}\{(\w+)\}", table)[0]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 4
        assert {line.count(" & ") + 1 for line in rows} == {len(declared)}


def test_a_terminal_sees_rank_method_dataset_and_main_figures() -> None:
    results = [scored("beta", 60.0), *(scored("alpha", 70.0 + s, seed=s) for s in (0, 1))]
    assert terminal(results, TITLES).splitlines() == [
        "Birds (30 classes, 894 test images): regime default, Plain",
        "",
        "rank    method    dataset      GT-known Loc",
        "------  --------  ---------  --------------",
        "1       Alpha     birds        70.50 ± 0.71",
        "2       Beta      birds               60.00",
    ]
    assert terminal([], TITLES) == ""


def test_a_terminal_tells_rows_of_one_method_apart() -> None:
    other = make_result({"method": "alpha", "backbone": "another"}, figures={"gt_known_loc": 1.0})
    first, second = terminal([scored("alpha", 70.0), other], TITLES).splitlines()[-2:]
    assert "Alpha, vit_tiny_patch16_224.augreg_in21k " in first
    assert "Alpha, another " in second


def test_csv_keeps_numbers_as_they_are() -> None:
    results = random_results()
    table = pd.read_csv(io.StringIO(csv(results, TITLES)), dtype={"recipe_key": str})
    assert len(table) == 6
    for _, line in table.iterrows():
        mine = [r for r in results if r.recipe_key == line["recipe_key"]]
        values = [r.figures["pxap"] for r in mine]
        assert line["pxap"] == pytest.approx(np.mean(values), rel=1e-12)
        assert line["pxap_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
        assert line["seeds"] == "6 7 8"


def test_csv_leaves_empty_what_is_undefined() -> None:
    (line,) = pd.read_csv(io.StringIO(csv([scored("alpha", 95.0)], TITLES))).to_dict("records")
    assert line["gt_known_loc"] == 95.0
    assert np.isnan(line["gt_known_loc_std"])
    assert np.isnan(line["pxap"])


def test_without_records_there_is_nothing_to_show() -> None:
    assert markdown([], TITLES) == latex([], TITLES) == ""
    assert len(csv([], TITLES).splitlines()) == 1


def test_curves_are_written_one_value_a_line(tmp_path: Path) -> None:
    levels = {"thresholds": [0.0, 0.5]}
    results = [
        make_result({"seed": 1}, curves={**levels, "a": [1, 2], "pxap_recall": [np.nan, 0.1, 1]}),
        make_result({"seed": 0}, curves={**levels, "a": [5.0, 6.0]}),
        make_result({"seed": 2}, curves={}),
    ]
    file = tmp_path / "curves.csv"
    curves_csv(results, file)
    table = pd.read_csv(file)
    assert table.columns.tolist() == ["run", "protocol", "seed", "curve", "threshold", "value"]
    assert table.seed.tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert table.curve.tolist() == ["a"] * 4 + ["pxap_recall"] * 3
    assert table.threshold.fillna(-1).tolist() == [0.0, 0.5, 0.0, 0.5, -1, -1, -1]
    assert table.value.fillna(-1).tolist() == [5, 6, 1, 2, -1, 0.1, 1]
    assert set(table.run) == {r.file_name().removesuffix(".json") for r in results[:2]}
    curves_csv([], file)
    assert file.read_text() == "run,protocol,seed,curve,threshold,value\n"


# --------------------------------------------------------------------------------- leaderboard


def reported(*rows: tuple[str, ...]) -> pd.DataFrame:
    columns = ("method", "year", "venue", "backbone", "dataset", "metric", "value", "source")
    return pd.DataFrame(rows, columns=columns)


def test_published_figures_are_pivoted_with_their_source() -> None:
    table = reported(
        ("Alpha", "2020", "V", "B", "Birds", "GT-known Loc", "12.30", "primary: one"),
        ("Alpha", "2020", "V", "B", "Birds", "Top-1 Loc", "4.5", "primary: one"),
        ("Alpha", "2020", "V", "B", "Birds", "GT-known Loc", "12.4", "primary: two"),
        ("Alpha", "2020", "V", "B", "Birds", "GT-known Loc", "99.9", "secondary: three"),
        ("Alpha", "2020", "V", "B", "Birds", "GT-known Loc @ 1 image", "99.8", "primary: one"),
        ("Other", "2020", "V", "B", "Birds", "GT-known Loc", "99.7", "primary: one"),
    )
    assert table_rows(published_table(table, {"Alpha"})) == [
        ["method", "year", "venue", "backbone", "dataset", "GT-known Loc", "Top-1 Loc", "source"],
        ["Alpha", "2020", "V", "B", "Birds", "12.30", "4.5", "primary: one"],
        ["Alpha", "2020", "V", "B", "Birds", "12.4", "-", "primary: two"],
    ]
    assert published_table(table, {"Nobody"}) == ""


def test_one_source_with_two_values_shows_both() -> None:
    row = ("Alpha", "2020", "V", "B", "Birds", "PxAP")
    table = reported((*row, "1.0", "primary: one"), (*row, "2.0", "primary: one"))
    assert "1.0 / 2.0" in published_table(table, {"Alpha"})


def test_the_published_figures_of_the_suite_keep_their_sources() -> None:
    table = read_reported()
    assert len(table) > 900
    assert (table["source"] != "").all()
    primary = table[table["source"].str.startswith("primary")]
    known = primary[primary["metric"].isin(FIGURE_TITLES.values())]
    names = known["method"].str.partition(" (")[0]  # what follows is no part of a method's name
    rows = table_rows(published_table(table, set(names)))
    shown = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    printed = [row.get(title, "-") for row in shown for title in FIGURE_TITLES.values()]
    assert sorted(v for v in printed if v != "-") == sorted(known["value"])
    assert all(row["source"].startswith("primary") for row in shown)


def test_published_and_measured_never_share_a_block() -> None:
    table = reported(("Alpha", "2020", "V", "B", "D", "GT-known Loc", "12.34", "primary: one"))
    page = leaderboard([scored("alpha", 56.78)], table, TITLES)
    measured, published = page.split("## Published figures (not measured here")
    assert "56.78" in measured
    assert "12.34" in published
    assert "56.78" not in published
    assert "12.34" not in measured
    assert "rank" not in table_rows(published)[0]


def test_the_leaderboard_is_the_same_however_often_and_in_whatever_order(tmp_path: Path) -> None:
    results = random_results()
    pages = []
    for seed in range(3):
        random.Random(seed).shuffle(results)
        folder = tmp_path / str(seed)
        for result in results:
            save_result(result, folder)
        for _ in range(2):
            assert write_leaderboard(folder, TITLES).problems == []
            pages.append((folder / FILE_NAME).read_bytes())
    assert len(set(pages)) == 1
    assert {f.name for f in tmp_path.glob("*/*")} == {FILE_NAME, "measured"}


def test_names_of_files_do_not_change_the_leaderboard(tmp_path: Path) -> None:
    for number, result in enumerate(random_results()):
        save_result(result, tmp_path / "a")
        file = save_result(result, tmp_path / "b")
        file.rename(file.with_name(f"{97 * number % 101}.json"))
    assert write_leaderboard(tmp_path / "a", TITLES).problems == []
    assert write_leaderboard(tmp_path / "b", TITLES).problems == []
    assert (tmp_path / "a" / FILE_NAME).read_text() == (tmp_path / "b" / FILE_NAME).read_text()


def test_a_bad_record_is_reported_and_the_others_shown(tmp_path: Path) -> None:
    file = save_result(scored("alpha", 56.78), tmp_path)
    file.with_name("broken.json").write_text("{")
    (problem,) = write_leaderboard(tmp_path, TITLES).problems
    assert "broken.json" in problem
    assert "56.78" in (tmp_path / FILE_NAME).read_text("utf-8")


def test_the_leaderboard_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results folder"):
        write_leaderboard(tmp_path / "absent", TITLES)


def test_a_page_without_runs_says_so() -> None:
    assert "No runs yet." in leaderboard([], read_reported(), TITLES)


def test_a_method_that_is_gone_goes_by_its_name() -> None:
    assert table_rows(markdown([scored("gone", 1.0)], TITLES))[1][1] == "gone"
