"""Normalisations of maps are data of the protocol, a percentile is chosen on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import MapRule, Normalization, Protocol, load_protocol
from wsolbench.scoring import scores_of
from wsolbench.types import Prediction, Truth

STANDARD, IVR = load_protocol("standard"), load_protocol("standard-ivr")
NAMES = {"minmax": "min-max", "max": "max", "pas": "percentile", "ivr": "above-percentile"}


def rule(normalization: str, percentile: float | None = None) -> MapRule:
    fields = STANDARD.map.model_dump()
    return MapRule(**{**fields, "normalization": normalization, "percentile": percentile})


def test_the_references_maps(shared: Path) -> None:
    with np.load(shared / "golden" / "post_hoc" / "norm_psol.npz") as file:
        arrays = {key[5:]: file[key] for key in file.files if key.startswith("norm/")}
    maps = arrays.pop("maps").astype(np.float64)
    assert len(arrays) == 6
    for key, expected in arrays.items():
        name, _, q = key.partition("_")
        percentile = float(q) if q else 0.9 if name == "pas" else None
        ours = [F.normalized(m, rule(NAMES[name], percentile)) for m in maps]
        # theirs is NaN where no value is above 0, and zeros when it is quantised
        np.testing.assert_allclose(ours, np.nan_to_num(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["min-max", "max", "percentile", "above-percentile"])
def test_any_map_ends_up_in_range(name: Normalization) -> None:
    draw = np.random.default_rng(0)
    sparse = np.maximum(draw.normal(size=(9, 9)) - 1.9, 0)
    maps = [draw.normal(size=(9, 9)), sparse, -1 - sparse, np.eye(9) * 1e300, -1e300 * np.eye(9)]
    made = rule(name, 0.9 if "percentile" in name else None)
    for native in maps:
        for dtype in (np.float64, np.float32):
            score = F.normalized(np.clip(native, -3e38, 3e38).astype(dtype), made)
            assert score.dtype == dtype
            assert score.min() >= 0
            assert score.max() <= 1
    if name == "percentile":  # the limit of a percentile that comes near the minimum
        np.testing.assert_array_equal(F.normalized(np.eye(20), made), np.eye(20))


@pytest.mark.parametrize(
    ("normalization", "percentile"),
    [("min-max", 0.5), ("max", 0.5), ("percentile", None), ("above-percentile", 1.0)],
)
def test_percentiles_that_do_not_fit(normalization: str, percentile: float | None) -> None:
    with pytest.raises(ValidationError, match="percentile"):
        rule(normalization, percentile)


def test_only_held_out_images_may_choose() -> None:
    fields = {**IVR.model_dump(), "selection": {"kind": "fixed", "value": 0.1}}
    with pytest.raises(ValidationError, match="held-out"):
        Protocol.model_validate(fields)


def test_named_variants_differ_from_standard_in_the_normalisation_alone() -> None:
    for name in ("standard-max", "standard-pas", "standard-ivr"):
        variant = load_protocol(name)
        assert variant.map != STANDARD.map
        same = {"name": "standard", "title": STANDARD.title, "map": STANDARD.map}
        assert variant.model_copy(update=same) == STANDARD


def blobs(seed: int, count: int = 5) -> list[tuple[Truth, Prediction]]:
    """A square that is brighter than a background of its own level."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(count):
        native = torch.rand(1, 14, 14, generator=generator, dtype=torch.float64)
        native[0, 4:10, 4:10] += 0.3 + torch.rand(1, generator=generator)
        box = np.array([[4.0, 4, 9, 9]]) * 16
        images.append((Truth(0, (224, 224), box), Prediction(maps=native)))
    return images


def scored(protocol: Protocol, images: list[tuple[Truth, Prediction]]) -> Scorer:
    scorer = Scorer(protocol)
    for truth, prediction in images:
        scorer.update([truth], prediction)
    return scorer


def test_percentile_and_threshold_are_the_best_pair_of_the_held_out_images() -> None:
    protocol = IVR.model_copy(
        update={"map": IVR.map.model_copy(update={"percentile": (0.6, 0.2, 0.4)})}
    )
    split: dict[Split, list[tuple[Truth, Prediction]]] = {"val": blobs(0), "test": blobs(1)}
    asked: list[tuple[float, Split]] = []

    def scorers(of: Sequence[Protocol], name: Split) -> list[Scorer]:
        asked.extend((q, name) for one in of for q in one.map.percentiles())
        return [scored(one, split[name]) for one in of]

    outcome = scores_of(protocol, scorers)
    assert [q for q, name in asked if name == "val"] == [0.2, 0.4, 0.6]
    assert [q for q, name in asked if name == "test"] == [outcome.percentile]
    best: tuple[int, int, float, int] = (-1, -1, 0.0, -1)
    for candidate in protocol.candidates():
        table = scored(candidate, split["val"]).image_table()
        assert table is not None
        hits = table.counts(table.iou >= 0.5)
        runs = "".join("x" if h == hits.max() else " " for h in hits).split()
        found = (int(hits.max()), max(map(len, runs)))
        if found > best[:2]:
            (q,) = candidate.map.percentiles()
            best = (*found, q, F.middle_of_longest_run(hits))
    assert outcome.percentile == best[2]
    assert outcome.scores.threshold == pytest.approx(best[3] / 1000)


def test_of_equal_percentiles_the_lowest_is_taken() -> None:
    box = [(t, Prediction(boxes=torch.tensor([[64.0, 64, 150, 150]]))) for t, _ in blobs(0)]
    assert scores_of(IVR, lambda of, _: [scored(one, box) for one in of]).percentile == 0.1


def test_without_held_out_images_nothing_is_chosen() -> None:
    with pytest.raises(InputError, match="--set holdout"):
        scores_of(IVR, lambda of, _: [Scorer(one) for one in of])
