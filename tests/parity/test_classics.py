"""HaS, CutMix, ADL, ACoL and SPG against the evaluators' code (Choe et al. 2020), part by part."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from parity import golden as ref
from parity.golden import Golden
from torch import nn

from wsolbench.registry import METHODS
from wsolbench.types import Batch


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return ref.load(shared, "cam_tiny")


def module_of(name: str) -> Any:
    module: ModuleType = sys.modules[METHODS.get(name).__module__]
    return module


def on_given_features(name: str, width: int, num_classes: int, **options: Any) -> Any:
    """The method on a trunk whose features are its input."""
    method: Any = METHODS.get(name)
    return method(ref.Given(width), num_classes, method.Options(**options))


# ------------------------------------------------------------------------------------------ HaS


@pytest.mark.parametrize(("grid", "expected"), [(56, "_keep"), (44, "_keep_full")])
def test_has_hides_the_cells_that_the_evaluators_hide(
    golden: Golden, grid: int, expected: str
) -> None:
    """Their arrays tell cells of whole images of 224 pixels, and one of cells that do not fit."""
    wanted = golden.tensor(f"has/seed7_grid{grid}_rate0.5{expected}").float()
    batch = wanted if wanted.ndim == 3 else wanted[None]
    model = on_given_features("has", 3, 2, grid_size=grid, drop_rate=0.5)
    random.seed(7)
    kept = model.kept(torch.zeros(len(batch), 3, 224, 224))[:, 0]
    cells = kept[:, ::grid, ::grid] if expected == "_keep" else kept
    assert torch.equal(cells, batch)


def test_has_hides_in_training_alone() -> None:
    model = on_given_features("has", 3, 2, grid_size=4, drop_rate=1.0)
    image, label = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    loss = model.training_step(Batch(image, label, ("a", "b")), 0.0)["loss"]
    ref.assert_near(loss, torch.tensor(np.log(2.0)), ref.LOSS)  # it sees nothing: the bias is zero
    shown = model.localize(image, label)
    weight = model.fc.weight[label]
    literal = (image * weight[:, :, None, None]).mean(1)
    ref.assert_near(shown.maps, literal.detach(), ref.MAPS)


# --------------------------------------------------------------------------------------- CutMix


@pytest.mark.parametrize(("keep", "seed"), [(0.1, 11), (0.5, 12), (0.9, 13)])
def test_cutmix_cuts_the_evaluators_box(golden: Golden, keep: float, seed: int) -> None:
    np.random.seed(seed)
    box = module_of("cutmix").cut_box(224, 224, keep)
    assert list(box) == golden.tensor(f"cutmix/box_lam{keep}_seed{seed}").tolist()


def seed_both(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_cutmix_weighs_labels_by_the_area_that_is_left(seed: int) -> None:
    """Images of one colour each: what is mixed, and the share, can be counted."""
    model = on_given_features("cutmix", 3, 4, beta=1.0)
    label = torch.arange(4)
    image = torch.arange(1.0, 5.0)[:, None, None, None].expand(4, 3, 20, 12)
    seed_both(seed)
    np.random.rand()  # whether to mix at all
    mixed, other, share = model.mix(image, label)
    for own, colours, pasted in zip(label, mixed, other, strict=True):
        assert set(colours.unique().tolist()) <= {own.item() + 1.0, pasted.item() + 1.0}
        if own != pasted:
            left = (colours[0] == own + 1).double().mean().item()
            assert left == pytest.approx(share)
    log = model.logits(mixed).log_softmax(1)
    rows = torch.arange(4)
    literal = -(share * log[rows, label] + (1 - share) * log[rows, other]).mean()
    seed_both(seed)
    loss = model.training_step(Batch(image, label, ("",) * 4), 0.0)["loss"]
    ref.assert_near(loss, literal.detach(), ref.LOSS)


def test_cutmix_can_leave_batches_alone() -> None:
    model = on_given_features("cutmix", 3, 2, probability=0.0)
    batch = Batch(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), ("a", "b"))
    plain = nn.functional.cross_entropy(model.logits(batch.image), batch.label)
    assert torch.equal(model.training_step(batch, 0.0)["loss"], plain)


# ------------------------------------------------------------------------------------------ ADL


def test_adl_branches(golden: Golden) -> None:
    feature = golden.tensor("adl/feature")
    adl = module_of("adl")
    ref.assert_near(adl.drop_mask(feature, 0.8), golden.tensor("adl/drop_mask"), 0)
    ref.assert_near(adl.importance(feature), golden.tensor("adl/importance"), ref.MAPS)


@pytest.mark.parametrize(("rate", "branch"), [(1.0, "drop"), (0.0, "importance")])
def test_adl_draws_one_of_both(golden: Golden, rate: float, branch: str) -> None:
    feature = golden.tensor("adl/feature")
    model = on_given_features("adl", 16, 5, drop_rate=rate, drop_threshold=0.8)
    ref.assert_near(model.attend_or_drop(feature), golden.tensor(f"adl/out_{branch}"), ref.TOKENS)


def test_adl_works_at_its_places_in_training_alone(golden: Golden) -> None:
    """Twice, after each of the last two stages."""
    feature, label = golden.tensor("adl/feature"), torch.tensor([1, 4])
    model = on_given_features("adl", 16, 5, drop_rate=0.0)
    once = feature * feature.mean(1, keepdim=True).sigmoid()
    twice = once * once.mean(1, keepdim=True).sigmoid()
    expected = nn.functional.cross_entropy(model.fc(twice.mean((2, 3))), label)
    loss = model.training_step(Batch(feature, label, ("a", "b")), 0.0)["loss"]
    ref.assert_near(loss, expected.detach(), ref.LOSS)
    ref.assert_near(model.features(feature), feature, 0)


# ----------------------------------------------------------------------------------------- ACoL


def acol(golden: Golden) -> Any:
    """ACoL with the reference's classifiers, single convolutions."""
    model = on_given_features("acol", 16, 5, erase_threshold=0.7, branch_width=2)
    for ours, theirs in (("branch_a", "classifier_A"), ("branch_b", "classifier_B")):
        classifier = nn.Conv2d(16, 5, kernel_size=1)
        ref.load_released(classifier, golden.below(f"acol/state/{theirs}."), str)
        setattr(model, ours, classifier)
    return model


def test_acol_erases_and_learns_as_the_evaluators(golden: Golden) -> None:
    model = acol(golden)
    feature, label = golden.tensor("adl/feature"), golden.tensor("acol/labels")
    first, second = model.class_maps(feature, label)
    ref.assert_near(first, golden.tensor("acol/feat_map_a"), ref.LOGITS)
    ref.assert_near(second, golden.tensor("acol/feat_map_b"), ref.LOGITS)
    ref.assert_near(second.mean((2, 3)), golden.tensor("acol/logit_b"), ref.LOGITS)
    loss = model.training_step(Batch(feature, label, ("a", "b")), 0.0)["loss"]
    ref.assert_near(loss, golden.tensor("acol/loss"), ref.LOSS)


@torch.no_grad()
def test_acol_map(golden: Golden) -> None:
    model = acol(golden)
    feature, label = golden.tensor("adl/feature"), golden.tensor("acol/labels")
    prediction = model.localize(feature, label)
    ref.assert_near(prediction.maps, golden.tensor("acol/cam"), ref.LOGITS)
    ref.assert_near(prediction.logits, golden.tensor("acol/logits"), ref.LOGITS)


def test_acol_erases_by_the_first_classifier_but_does_not_teach_it_so(golden: Golden) -> None:
    """Nothing of the second loss reaches the first classifier."""
    model = acol(golden)
    feature, label = golden.tensor("adl/feature"), golden.tensor("acol/labels")
    losses = model.training_step(Batch(feature, label, ("a", "b")), 0.0)
    found = torch.autograd.grad(losses["second"], model.branch_a.weight, allow_unused=True)
    assert found == (None,)


# ------------------------------------------------------------------------------------------ SPG


def images_of(label: torch.Tensor, side: int) -> Batch:
    """Images that only their size matters of."""
    return Batch(torch.zeros(len(label), 3, side, side), label, ("",) * len(label))


def test_spg_guides_and_losses(golden: Golden) -> None:
    spg = module_of("spg")
    names = ("feat_map", "logits_b1", "logits_b2", "logits_c")
    maps = spg.Maps(*(golden.tensor(f"spg/{name}") for name in names))
    label = golden.tensor("acol/labels")
    ref.assert_near(maps.classes.mean((2, 3)), golden.tensor("spg/logits"), ref.LOGITS)
    model = on_given_features("spg", 16, 5, b_width=2, c_width=2)
    assert np.array_equal(model.options.thresholds, golden.tensor("spg/thresholds"))
    loss = model.losses(maps, images_of(label, 224))["loss"]
    ref.assert_near(loss, golden.tensor("spg/loss"), ref.LOSS)


def test_spg_leaves_open_what_the_evaluators_leave_open(golden: Golden) -> None:
    """Attention at every eighth pixel, and the mask that teaches B2: 255 is neither."""
    spg = module_of("spg")
    label, maps = golden.tensor("acol/labels"), golden.tensor("spg/feat_map")
    own = torch.stack([m[c] for m, c in zip(maps, label.tolist(), strict=True)])
    attention = spg.min_max(spg._resized(own, (224, 224)))
    ref.assert_near(attention[:, ::8, ::8], golden.tensor("spg/attention_sub")[:, 0], ref.MAPS)
    foreground, background = spg.guide(attention, 0.7, 0.01)
    mask = torch.where(foreground, 1.0, torch.where(background, 0.0, 255.0))
    ref.assert_near(mask[:, ::8, ::8], golden.tensor("spg/mask_b2"), 0)


def test_spg_fuses_what_both_masks_say(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    spg = module_of("spg")
    names = ("feat_map", "logits_b1", "logits_b2", "logits_c")
    maps = spg.Maps(*(golden.tensor(f"spg/{name}") for name in names))
    guides: list[torch.Tensor] = []
    own = spg.guided_loss

    def watched(logits: torch.Tensor, guide: torch.Tensor, *rest: Any) -> torch.Tensor:
        guides.append(guide)
        loss: torch.Tensor = own(logits, guide, *rest)
        return loss

    monkeypatch.setattr(spg, "guided_loss", watched)
    model = on_given_features("spg", 16, 5, b_width=2, c_width=2)
    model.losses(maps, images_of(golden.tensor("acol/labels"), 224))
    expected = golden.tensor("spg/fused_sub")
    subs = [guide.reshape(2, 1, 224, 224)[..., ::8, ::8] for guide in guides]
    gaps = [float((sub - expected).abs().max()) for sub in subs]
    assert sorted(gap <= ref.MAPS for gap in gaps) == [False, False, True]


def test_spg_lowers_its_bar_where_little_is_sure() -> None:
    spg = module_of("spg")
    attention = torch.zeros(2, 16, 16)
    attention[:, :6, :6] = 0.4
    attention[1, :5, :6] = 0.9  # 30 pixels above the bar, and in the other image none
    foreground, background = spg.guide(attention, 0.7, 0.1)
    assert foreground.sum((1, 2)).tolist() == [36, 30]
    assert background.sum((1, 2)).tolist() == [220, 220]


def test_spg_masks_teach_each_other_one_way(golden: Golden) -> None:
    """B1 learns from B2 and C from both, but no mask learns from being a target."""
    spg = module_of("spg")
    names = ("feat_map", "logits_b1", "logits_b2", "logits_c")
    maps = spg.Maps(*(golden.tensor(f"spg/{name}").requires_grad_() for name in names))
    model = on_given_features("spg", 16, 5, b_width=2, c_width=2)
    losses = model.losses(maps, images_of(golden.tensor("acol/labels"), 56))
    reached = {
        name: [
            gradient is not None
            for gradient in torch.autograd.grad(
                losses[name], maps, retain_graph=True, allow_unused=True
            )
        ]
        for name in ("cls", "b1", "b2", "c")
    }
    assert reached == {
        "cls": [True, False, False, False],
        "b1": [False, True, False, False],
        "b2": [False, False, True, False],
        "c": [False, False, False, True],
    }
