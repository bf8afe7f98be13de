"""Few training images a class: which ones, for how long, and what becomes of their records."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from records import RECIPE, make_result

from wsolbench import few_shot, tables
from wsolbench.data.loader import DecodedImages, Length, TrainLoader
from wsolbench.dataset import Sample, few_shots
from wsolbench.errors import InputError
from wsolbench.inputs import training_length
from wsolbench.ranking import distinctions, groups
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS
from wsolbench.results import Result

TITLES = {"alpha": "Alpha", "beta": "Beta"}
NOWHERE = Path("nowhere")


def ids(samples: Sequence[Sample]) -> list[str]:
    return [sample.image_id for sample in samples]


# ------------------------------------------------------------------------------------ which images


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(4, 9), min_size=1, max_size=4), st.integers(0, 99), st.randoms())
def test_a_choice_is_nested_even_and_blind_to_order(
    sizes: list[int], draw: int, shuffler: Any
) -> None:
    train = [Sample(f"{c}/{i}", NOWHERE, c) for c, size in enumerate(sizes) for i in range(size)]
    names = [str(c) for c in range(len(sizes))]
    chosen = [few_shots(train, shots, draw, names) for shots in range(1, 5)]
    for shots, samples in enumerate(chosen, 1):
        assert Counter(s.label for s in samples) == dict.fromkeys(range(len(sizes)), shots)
        assert ids(samples) == [i for i in ids(train) if i in ids(samples)]
    for fewer, more in itertools.pairwise(chosen):
        assert set(ids(fewer)) < set(ids(more))
    mixed = shuffler.sample(train, len(train))
    assert set(ids(few_shots(mixed, 3, draw, names))) == set(ids(chosen[2]))


def test_draws_are_choices_of_their_own_and_the_same_everywhere() -> None:
    train = [Sample(f"bird/{i:02}.jpg", NOWHERE, 0) for i in range(40)]
    chosen = [ids(few_shots(train, 3, draw, ["bird"])) for draw in range(20)]
    assert len({tuple(c) for c in chosen}) == 20
    assert len({i for c in chosen for i in c}) > 25
    # Records name a draw by its number alone, so that this must never change.
    assert chosen[0] == FIRST_DRAW


FIRST_DRAW = ["bird/11.jpg", "bird/15.jpg", "bird/31.jpg"]


def test_a_class_with_too_few_images_is_named(tiny_cub: Path) -> None:
    data = DATASETS.get("cub")(tiny_cub, 5)
    train = data.samples("train")  # 3 of 8 a class
    assert len(few_shots(train, 3, 0, data.class_names)) == 9
    short = [s for s in train if s.label != 1] + [s for s in train if s.label == 1][:2]
    with pytest.raises(InputError) as raised:
        few_shots(short, 3, 0, data.class_names)
    name = data.class_names[1]
    assert str(raised.value) == (
        f"class '{name}' has 2 training images beside the hold-out, fewer than --shots 3"
    )


# ---------------------------------------------------------------------------------------- how long


def loader_of(samples: Sequence[Sample], images: DecodedImages, length: Length | None) -> Any:
    grey = ((0.5,) * 3,) * 2
    return TrainLoader(samples, images, 5, 8, 0.5, *grey, 3, False, "cpu", length)


@pytest.mark.parametrize("count", [1, 4, 5, 24])
def test_parts_are_pieces_of_one_row_of_epochs(tiny_cub: Path, count: int) -> None:
    samples = DATASETS.get("cub")(tiny_cub).samples("train")[:count]
    images = DecodedImages(samples, 12)
    loader = loader_of(samples, images, Length(11, 3))
    parts = [list(loader.epoch(part)) for part in (1, 2, 3)]
    assert [len(part) for part in parts] == [loader.batches(part) for part in (1, 2, 3)]
    assert sorted(len(part) for part in parts) == [3, 4, 4]
    batches = [batch for part in parts for batch in part]
    assert {len(batch.label) for batch in batches} == {5}
    seen = [image_id for batch in batches for image_id in batch.image_id]
    rounds = [seen[start : start + count] for start in range(0, len(seen), count)]
    for whole in rounds[: len(seen) // count]:
        assert sorted(whole) == sorted(ids(samples))
    # each round is the epoch that it would be, with its crops and flips
    classic = loader_of(samples, images, None)
    pixels = torch.cat([batch.image for batch in batches])
    epochs = torch.cat([batch.image for e in range(1, 57) for batch in classic.epoch(e)][:60])
    assert torch.equal(pixels, epochs[: len(pixels)])


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **fields})


def test_a_training_of_no_batch_is_refused(tiny_cub: Path) -> None:
    samples = list(DATASETS.get("cub")(tiny_cub, 1).samples("train"))
    images = DecodedImages(samples, 12)
    with pytest.raises(InputError, match="make no batch"):
        loader_of(samples, images, Length(0, 3))


def test_the_length_is_the_same_at_every_number_of_images() -> None:
    # 750 images in 24 batches of 32, 15 times
    assert training_length(recipe(), 750) is None
    lengths = {training_length(recipe(shots=k), 750) for k in (1, 3, 10)}
    assert lengths == {Length(360, 15)}
    assert training_length(recipe(shots=1, drop_last=True), 750) == Length(345, 15)
    for shots in (None, 1, 5):
        asked = recipe(shots=shots, iterations=140, epochs=5)
        assert training_length(asked, 750) == Length(140, 5)
        assert len({len(Length(140, 5).batches(part)) for part in range(1, 6)}) == 1


def test_a_draw_is_no_part_of_the_key_and_tells_runs_apart() -> None:
    few = [recipe(shots=3, draw=draw) for draw in (0, 1)]
    assert few[0].key() == few[1].key()
    assert few[0].key() != recipe().key()
    assert recipe(shots=5).key() != few[0].key()
    assert len({r.run_name() for r in (*few, recipe())}) == 3
    records = [make_result({"shots": 3, "draw": draw}) for draw in (0, 1)]
    assert records[0].identity() != records[1].identity()
    assert records[0].file_name() != records[1].file_name()


# ----------------------------------------------------------------------------------------- records


def run_of(
    method: str, shots: int | None, draw: int, value: float, seed: int = 0, **more: Any
) -> Result:
    fields = {"method": method, "shots": shots, "draw": draw, "seed": seed, **more}
    fields |= {"iterations": 140, "epochs": 5}
    some = "" if shots is None else f" --set shots={shots} --set draw={draw}"
    command = f"python run_benchmark.py --method {method} --dataset birds --set iterations=140"
    result = make_result(
        fields,
        figures={"gt_known_loc": value, "top1_loc": value / 2},
        iterations=140,
        dataset={"name": more.get("dataset", "birds"), "train": 30 * (shots or 25)},
    )
    return result.model_copy(update={"command": f"{command}{some} --device cpu --seed {seed}"})


BATCHES = {"alpha": 256, "beta": 128}
GRID = [
    *(run_of("alpha", k, d, 40.0 + k + d) for k in (1, 3) for d in (0, 1, 2)),
    run_of("alpha", 10, 0, 70.0),
    run_of("alpha", None, 0, 80.0),
    *(run_of("beta", k, d, 30.0 + k * d) for k in (1, 3) for d in (0, 1, 2)),
    run_of("beta", None, 0, 85.0),
]
FULL = [make_result({"method": "alpha"}), make_result({"method": "beta"})]


def test_full_and_few_are_never_ranked_together() -> None:
    made = groups([*GRID, *FULL])
    for group in made:
        assert len({(r.recipe.shots, r.recipe.iterations) for r in group.results}) == 1
    assert sum(len(group.results) for group in made) == len(GRID) + len(FULL)
    released = [make_result({"name": "released", "shots": k}) for k in (None, 1)]
    assert len(groups(released)) == 2
    page = tables.markdown([*GRID, *FULL], TITLES)
    assert page.count("### ") == 2  # all images, for 15 epochs and for 140 iterations
    assert "Here: 140 iterations, batch size 32" in page
    assert "41.00" not in page


def test_a_chart_holds_every_method_over_every_number() -> None:
    (chart,) = few_shot.charts([*GRID[::-1], *FULL])
    assert chart.shots == [1, 3, 10, None]
    assert chart.iterations == [140]
    assert [curve.first.recipe.method for curve in chart.curves] == ["alpha", "beta"]
    alpha, beta = chart.curves
    assert [point.label for point in alpha.points] == ["1", "3", "10", "all"]
    assert [point.label for point in beta.points] == ["1", "3", "all"]
    row = alpha.points[1].row
    assert row.draws == (0, 1, 2)
    assert row.mean("gt_known_loc") == pytest.approx(mean([43, 44, 45]))
    assert row.std("gt_known_loc") == pytest.approx(stdev([43, 44, 45]))
    assert alpha.points[3].row.std("gt_known_loc") is None


def test_whole_recipes_come_before_those_that_were_cut() -> None:
    cut = run_of("alpha", None, 0, 99.0)
    whole = make_result({"method": "alpha", "epochs": 25}, figures={"gt_known_loc": 1.0})
    found = groups([cut, whole])
    assert [group.first.recipe.iterations for group in found] == [None, 140]
    assert distinctions(found) == ["25 epochs", "140 iterations"]


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8},
        {"image_size": 128},
        {"name": "released"},
        {"iterations": 150},
    ],
)
def test_what_was_trained_otherwise_is_no_point_of_the_curve(change: dict[str, Any]) -> None:
    other = make_result({"method": "alpha", "epochs": 5, "iterations": 140, "shots": 5} | change)
    made = few_shot.charts([*GRID, other])
    assert len(made) == 2
    assert sorted(len(chart.results) for chart in made) == [1, len(GRID)]


def test_other_options_make_another_curve_of_the_chart() -> None:
    (chart,) = few_shot.charts([*GRID, run_of("alpha", 3, 0, 1.0, options={"blocks": 4})])
    assert [c.first.recipe.method for c in chart.curves] == ["alpha", "alpha", "beta"]
    half = run_of("alpha", 3, 0, 1.0, precision="bf16")
    assert len(few_shot.charts([*GRID, half])[0].curves) == 3


def test_curves_of_one_method_are_told_apart_wherever_they_are_named() -> None:
    control = run_of("alpha", 3, 0, 1.0, train_labels="shuffled")
    blocks = run_of("alpha", 3, 0, 2.0, options={"blocks": 4})
    (chart,) = few_shot.charts([*GRID, control, blocks])
    labels = few_shot.curve_labels(chart, TITLES)
    assert len(set(labels)) == len(labels) == 4
    assert "Alpha, shuffled labels" in labels
    data = pd.read_csv(io.StringIO(few_shot.csv([*GRID, control, blocks], TITLES)))
    assert set(data.method_title) == set(labels)
    shuffled = data[data.train_labels == "shuffled"]
    assert shuffled[shuffled.figure == "gt_known_loc"]["mean"].tolist() == [1.0]
    for text in (few_shot.markdown, few_shot.terminal, few_shot.latex):
        shown = text([*GRID, control, blocks], TITLES)
        assert "Alpha, shuffled labels" in shown
        assert f"Alpha, recipe {blocks.recipe_key}" in shown


def test_a_chart_of_pixels_alone_shows_them_and_one_of_nothing_is_none() -> None:
    pixels = [r.model_copy(update={"figures": {"pxap": 30.0}}) for r in GRID]
    (chart,) = few_shot.charts(pixels)
    assert chart.figures == ["pxap"]
    assert few_shot.charts([r.model_copy(update={"figures": {}}) for r in GRID]) == []


def test_oracles_and_batch_sizes_are_said() -> None:
    chosen = [r.model_copy(update={"oracle": ("gt_known_loc",)}) for r in GRID]
    assert "| GT-known Loc (oracle) |" in few_shot.markdown(chosen, TITLES)
    fields = {"name": "released", "shots": 1, "iterations": 20}
    sizes = [make_result({"method": m, "batch_size": b, **fields}) for m, b in BATCHES.items()]
    assert "of batch size 128 or 256 at every number" in few_shot.markdown(sizes, TITLES)


def test_tables_say_spread_runs_and_length() -> None:
    page = few_shot.markdown([*GRID, *FULL], TITLES)
    assert page.count("### ") == 1
    assert "140 iterations of batch size 32 at every number" in page
    assert "the same 5 held-out images a class" in page
    line = next(text for text in page.splitlines() if "Alpha" in text and "GT-known" in text)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4:] == ["42.00 ± 1.00 (3)", "44.00 ± 1.00 (3)", "70.00", "80.00"]
    assert " - |" in next(t for t in page.splitlines() if "Beta" in t and "GT-known" in t)
    commands = [text for text in page.splitlines() if text.startswith("python ")]
    base = "python run_benchmark.py --method alpha --dataset birds --set iterations=140"
    assert f"{base} --device cpu --shots 1,3 --draws 3 --seed 0" in commands
    assert f"{base} --device cpu --shots 10,all --seed 0" in commands
    shown = few_shot.terminal(GRID, TITLES)
    assert "42.00 ± 1.00 (3)" in shown
    assert few_shot.markdown(FULL, TITLES) == few_shot.terminal(FULL, TITLES) == ""


def test_latex_has_the_rows_of_the_page() -> None:
    page, text = few_shot.markdown(GRID, TITLES), few_shot.latex(GRID, TITLES)
    ours = [line for line in page.splitlines() if line.startswith("|")]
    theirs = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(theirs) == len(ours) - 1  # less the line under the headings
    spec = re.search(r"begin{tabular}{(l+)(r+)}", text)
    assert spec
    assert {row.count(" & ") + 1 for row in theirs} == {len(spec[1] + spec[2])}
    assert r"$\pm$" in text
    assert few_shot.latex(FULL, TITLES) == ""


def test_the_data_are_one_line_a_figure_of_a_point() -> None:
    table = pd.read_csv(io.StringIO(few_shot.csv([*GRID, *FULL], TITLES)))
    assert len(table) == 2 * (4 + 3)
    some = table[(table.method == "alpha") & (table.figure == "top1_loc")]
    assert some["mean"].tolist() == pytest.approx([21.0, 22.0, 35.0, 40.0])
    assert some.shots.tolist()[:3] == [1, 3, 10]
    assert some.draws.tolist() == [3, 3, 1, 1]
    assert some.images.tolist() == [30, 90, 300, 750]
    assert set(some.iterations) == {140}
    assert few_shot.frame(FULL, TITLES).empty


def test_a_published_curve_belongs_to_its_dataset_alone() -> None:
    (reference,) = few_shot.published_curves("ilsvrc")
    assert reference.points == ((1, 70.9), (3, 71.9), (5, 72.6), (10, 72.9), (None, 73.1))
    assert (reference.label, reference.figure) == ("SAT, DeiT-S, as published", "gt_known_loc")
    assert reference.source.startswith("primary")
    for name in DATASETS.names():
        assert bool(few_shot.published_curves(name)) == (name == "ilsvrc")
