"""The table of a run's images: without loss, small, and never that of another run."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import make_result

from wsolbench.errors import InputError, WsolbenchError
from wsolbench.metrics import derived
from wsolbench.metrics.image_table import Facts, ImageTable, from_bytes, to_bytes
from wsolbench.metrics.scorer import IOUS, Scorer, Scores
from wsolbench.protocol import load_protocol
from wsolbench.results import MEASURED, load_results, read_result, read_table, save_result
from wsolbench.types import Prediction, Truth

SIDE = 224
#: figures that are counted over pixels, which the table does not hold
OF_PIXELS = {"pxap", "part_coverage"}
Images = list[tuple[Truth, Prediction]]


def random_images(seed: int, count: int = 12) -> Images:
    """Smooth, noisy and dead maps with one to three true boxes each."""
    draw = np.random.default_rng(seed)
    images = []
    for i in range(count):
        native = draw.random((1, *draw.choice([3, 7, 28], 2)))
        if i % 5 == 4:
            native[:] = draw.choice([0.5, np.nan])
        near = draw.uniform(0, 120, (draw.integers(1, 4), 2))
        boxes = np.concatenate([near, near + draw.uniform(20, 150, near.shape)], axis=1)
        truth = Truth(i % 4, (300, 200), boxes, image_id=f"bird {seed}/ø{count - i}.jpg")
        logits = torch.from_numpy(draw.random((1, 7)))
        images.append((truth, Prediction(maps=torch.from_numpy(native), logits=logits)))
    return images


def scored(images: Sequence[tuple[Truth, Prediction]], name: str) -> Scorer:
    scorer = Scorer(load_protocol(name))
    for truth, prediction in images:
        scorer.update([truth], prediction)
    return scorer


def results_of(scorer: Scorer) -> tuple[Scores, ImageTable]:
    table = scorer.image_table()
    assert table is not None
    return scorer.compute(scorer.select_threshold()), table


def assert_same_table(a: ImageTable, b: ImageTable) -> None:
    for field in fields(ImageTable):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other


@pytest.fixture(scope="module")
def table() -> ImageTable:
    return results_of(scored(random_images(1), "standard"))[1]


# ------------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("name", ["standard", "wsoleval", "sat", "ts-cam"])
@pytest.mark.parametrize("seed", range(3))
def test_all_that_derives_is_what_scoring_gave(name: str, seed: int) -> None:
    images = random_images(seed)
    scorer = scored(images, name)
    scores, table = results_of(scorer)
    table = from_bytes(to_bytes(table))
    order = np.argsort([truth.image_id for truth, _ in images])
    for values, state in ((table.iou, scorer.iou), (table.iou_of_all, scorer.iou_of_all)):
        measured = torch.cat(state).numpy()[order]
        if measured.shape[1]:
            np.testing.assert_array_equal(table.per_image(values), measured)
    for figure in scores.figures.keys() - OF_PIXELS:
        right = derived.hits(table, figure, scores.threshold)  # type: ignore[arg-type]
        assert right is not None
        assert derived.figure_of(right) == scores.figures[figure], figure
    curves = [scores.curves[f"box_acc_{iou}"] for iou in IOUS]
    np.testing.assert_array_equal(derived.surface(table, [iou / 100 for iou in IOUS]), curves)


def test_derived_sums_are_those_over_the_whole_matrix(table: ImageTable) -> None:
    iou = table.per_image(table.iou)
    assert derived.area(table) == pytest.approx(100 * iou.mean(), rel=1e-12)
    fine = derived.surface(table, np.linspace(0, 1, 4001)[1:].tolist())
    assert derived.area(table) == pytest.approx(fine.mean(), abs=0.03)
    assert derived.mean_iou(table, 300) == pytest.approx(100 * iou[:, 300].mean(), rel=1e-12)
    assert derived.best_level(table) == int((iou >= 0.5).sum(axis=0).argmax())


def test_the_order_of_images_and_their_spread_over_scorers_change_nothing() -> None:
    images = random_images(2)
    whole = results_of(scored(images, "standard"))[1]
    other = scored(images[5:], "standard")
    other.merge_state(scored(images[:5], "standard"))
    assert to_bytes(results_of(other)[1]) == to_bytes(whole)
    assert list(whole.image_id) == sorted(truth.image_id for truth, _ in images)


def test_given_boxes_of_any_kind_are_one_change_an_image() -> None:
    boxes = np.array([[10.3, 20.7, 100.1, 150.9], [np.nan] * 4, [5, 5, 1, 1]])
    images = [
        (Truth(0, (SIDE, SIDE), np.array([[10.0, 20, 100, 150]]), image_id=str(i)), box)
        for i, box in enumerate(boxes)
    ]
    scorer = Scorer(load_protocol("wsoleval"), input_size=448)
    for truth, box in images:
        scorer.update([truth], Prediction(boxes=torch.from_numpy(box)[None]))
    table = from_bytes(to_bytes(results_of(scorer)[1]))
    np.testing.assert_array_equal(table.change_count, 1)
    np.testing.assert_array_equal(table.per_image(table.iou), torch.cat(scorer.iou).numpy())


def test_without_boxes_there_is_no_table() -> None:
    truth = Truth(0, (SIDE, SIDE), np.empty((0, 4)))
    scorer = Scorer(load_protocol("standard"))
    scorer.update([truth], Prediction(maps=torch.rand(1, 4, 4)))
    assert scorer.image_table() is None


def test_a_table_of_smooth_maps_is_small() -> None:
    images = []
    draw = np.random.default_rng(0)
    for i in range(40):
        boxes = np.array([[40.0, 40, 180, 190]])
        native = torch.from_numpy(draw.random((1, 14, 14)))
        smooth = torch.nn.functional.avg_pool2d(native, 5, 1, 2)
        truth = Truth(i % 30, (SIDE, SIDE), boxes, image_id=f"{i}.jpg")
        images.append((truth, Prediction(maps=smooth)))
    content = to_bytes(results_of(scored(images, "standard"))[1])
    assert len(content) < 1_000_000 * len(images) / 801


# ------------------------------------------------------------------------------ kinds and sizes


def one_answer(box: Sequence[int], true: Sequence[Sequence[int]], rank: int = 0) -> ImageTable:
    return ImageTable(
        facts=Facts(0.5, False, SIDE, False, rank >= 0),
        image_id=("a",),
        label=np.array([0]),
        rank=np.array([rank]),
        dead=np.array([False]),
        thresholds=np.array([0.0]),
        true_count=np.array([len(true)]),
        true_boxes=np.array(true, dtype=np.float64),
        change_count=np.array([1]),
        changes=np.array([[0, *box, 0]], dtype=np.float64),
    )


@pytest.mark.parametrize(
    ("box", "true", "rank", "kind"),
    [
        ((0, 0, 9, 9), [(0, 0, 9, 9)], 0, "right"),
        ((0, 0, 9, 9), [(0, 0, 9, 9)], -1, "right"),
        ((0, 0, 9, 9), [(0, 0, 9, 9)], 1, "wrong class"),
        ((0, 0, 9, 4), [(0, 0, 9, 9)], 0, "part"),  # an IoU of just one half is not right
        ((0, 0, 19, 9), [(0, 0, 9, 9)], 0, "more"),
        ((0, 0, 19, 9), [(0, 0, 3, 9), (10, 0, 13, 9)], 0, "several instances"),
        ((5, 0, 14, 9), [(0, 0, 9, 9)], 0, "wrong"),
        ((100, 0, 109, 9), [(0, 0, 9, 9)], 0, "wrong"),
    ],
)
def test_kinds_of_answers(
    box: Sequence[int], true: Sequence[Sequence[int]], rank: int, kind: str
) -> None:
    (found,) = derived.kinds(one_answer(box, true, rank), 0)
    assert derived.KINDS[found] == kind


def test_sizes_go_by_the_largest_true_box() -> None:
    tenth = int(SIDE * 0.3)  # 0.09 of the frame
    boxes = [[0, 0, tenth - 1, tenth - 1], [0, 0, 0, 0]]
    assert derived.sizes(one_answer((0, 0, 1, 1), boxes)) == [0]
    assert derived.sizes(one_answer((0, 0, 1, 1), [*boxes, [0, 0, 223, 100]])) == [2]
    assert derived.sizes(one_answer((0, 0, 1, 1), [[0, 0, 224, 224]])) == [3]


# -------------------------------------------------------------------------------------- on disk


def test_a_record_and_its_table_survive_the_disk(table: ImageTable, tmp_path: Path) -> None:
    file = save_result(make_result(), tmp_path, table)
    back = read_result(file)
    assert_same_table(read_table(back, tmp_path), table)
    (beside,) = file.parent.glob("*.npz")
    assert back.table is not None
    assert beside.stat().st_size == back.table.bytes
    assert load_results(tmp_path) == ([back], [])


def other_table() -> ImageTable:
    return results_of(scored(random_images(3, 4), "standard"))[1]


def test_a_later_table_takes_the_place_of_the_former(table: ImageTable, tmp_path: Path) -> None:
    save_result(make_result({"seed": 1}), tmp_path, table)
    save_result(make_result(), tmp_path, table)
    file = save_result(make_result(), tmp_path, other_table())
    assert_same_table(read_table(read_result(file), tmp_path), other_table())
    assert len(list((tmp_path / MEASURED).glob("*.npz"))) == 2
    save_result(make_result(), tmp_path)  # scored without boxes, say
    assert len(list((tmp_path / MEASURED).glob("*.npz"))) == 1


@pytest.mark.parametrize("what", [".json", ".npz"])
def test_a_full_disk_leaves_record_and_table(
    table: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    file = save_result(make_result(), tmp_path, table)
    before = {f: f.read_bytes() for f in file.parent.iterdir()}
    real = Path.replace

    def refuse(self: Path, target: Path) -> Any:
        if target.name.endswith(what):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(WsolbenchError, match="make room"):
        save_result(make_result(), tmp_path, other_table())
    assert {f: f.read_bytes() for f in file.parent.iterdir()} == before


def one_line(error: pytest.ExceptionInfo[InputError], words: str) -> None:
    assert "\n" not in str(error.value)
    assert words in str(error.value)


def test_tables_that_do_not_belong_to_the_record(table: ImageTable, tmp_path: Path) -> None:
    result = read_result(save_result(make_result(), tmp_path, table))
    (file,) = (tmp_path / MEASURED).glob("*.npz")
    whole = file.read_bytes()
    foreign = to_bytes(other_table())
    for content in (foreign, whole[: len(whole) // 2], b"", whole[:-1] + b"x"):
        file.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_table(result, tmp_path)
        one_line(error, f"{file}: damaged, or the table of another run")
    file.unlink()
    with pytest.raises(InputError) as error:
        read_table(result, tmp_path)
    one_line(error, "run again")
    with pytest.raises(InputError) as error:
        read_table(make_result(), tmp_path)
    one_line(error, "has no table of its images; run again: wsolbench run")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"{}"])
def test_what_is_no_table(content: bytes) -> None:
    with pytest.raises(InputError, match="no table"):
        from_bytes(content)
