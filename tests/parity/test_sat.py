"""SAT against the released class: arithmetic, gradients, optimiser groups, steps, initial state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import lean_sat, sat, sat_losses
from parity import golden as ref
from parity.golden import Golden
from torch import Tensor

from wsolbench.recipe import RecipeName
from wsolbench.registry import METHODS
from wsolbench.types import Batch

ACTING = 3
TOKENS = ("loc_token", "loc_embed")
RECIPES = [("released", "opt_as_released"), ("declared", "opt_bare_model")]


def rename(name: str) -> str:
    if name == "weight":
        return "smoothing"
    return name if name in TOKENS or name.startswith("head.") else f"vit.{name}"


def released(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's parameters under the names of the released checkpoint, as the oracle reads it."""
    return {name.removeprefix("vit."): value for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return ref.load(shared, "sat_tiny")


def build(golden: Golden, **options: Any) -> Any:
    method: Any = METHODS.get("sat")
    model = method(ref.tiny_vit(), ref.CLASSES, method.Options(**options))
    state = golden.below("state/")
    del state["weight"]  # the fixed kernel, which is no part of our checkpoints
    ref.load_released(model, state, rename)
    return model


@pytest.mark.parametrize(
    ("name", "atol"),
    [
        ("logits", ref.LOGITS),
        ("map", ref.MAPS),
        ("masks", ref.MAPS),
        ("tokens_norm", ref.TOKENS),
        ("semantic_map", 5e-5),
        ("block_out_img0", 5e-5),
    ],
)
def test_oracle_reproduces_the_released_pass(golden: Golden, name: str, atol: float) -> None:
    with torch.no_grad():
        out = sat(golden.below("state/"), golden.tensor("images"), ref.HEADS)
    found = {
        "logits": out.logits,
        "map": out.grid_map,
        "masks": out.trace.masks,
        "tokens_norm": out.trace.tokens_norm,
        "semantic_map": out.semantic_map,
        "block_out_img0": out.trace.block_out[:, 0],
    }
    ref.assert_near(found[name], golden.tensor(f"eval/{name}"), atol)


@torch.no_grad()
def test_eval_pass(golden: Golden) -> None:
    model = build(golden).eval()
    tokens, masks = model.forward_masks(golden.tensor("images"))
    ref.assert_near(tokens, golden.tensor("eval/tokens_norm"), ref.TOKENS)
    ref.assert_near(torch.stack(masks), golden.tensor("eval/masks")[-ACTING:], ref.MAPS)


@pytest.mark.parametrize("known", [True, False])
@torch.no_grad()
def test_localize_is_class_agnostic(golden: Golden, known: bool) -> None:
    label = golden.tensor("labels") if known else None
    prediction = build(golden).eval().localize(golden.tensor("images"), label)
    ref.assert_near(prediction.maps, golden.tensor("eval64/map"), ref.MAPS)
    ref.assert_near(prediction.logits, golden.tensor("eval64/logits"), ref.LOGITS)


@pytest.mark.parametrize("target", [0.25, 0.35])
def test_losses_of_a_batch(golden: Golden, target: float) -> None:
    step = build(golden, area_target=target).train().training_step(golden.batch(), 0.0)
    for key, name in {"cls": "cls", "area": "ba", "norm": "norm", "loss": "total"}.items():
        ref.assert_near(step[key], golden.tensor(f"loss_thr{target}/{name}"), ref.LOSS)


@pytest.mark.parametrize("image", range(4))
def test_area_and_normalisation_per_image(golden: Golden, image: int) -> None:
    model = build(golden, area_target=0.25).train()
    step = model.training_step(golden.batch(image, image + 1), 0.0)
    area = golden.tensor("train/area_per_image")[image]
    ref.assert_near(step["area"], (area - 0.25).abs(), ref.LOSS)
    ref.assert_near(step["norm"], golden.tensor("train/norm_per_image")[image], ref.LOSS)


def test_area_is_held_per_rank(golden: Golden) -> None:
    model = build(golden, area_target=0.35).train()
    ranks = [model.training_step(golden.batch(2 * r, 2 * r + 2), 0.0) for r in (0, 1)]
    for rank, step in enumerate(ranks):
        expected = golden.tensor(f"loss_ddp2_thr0.35/ba_rank{rank}")
        ref.assert_near(step["area"], expected, ref.LOSS)
    total = (ranks[0]["loss"] + ranks[1]["loss"]) / 2
    ref.assert_near(total, golden.tensor("loss_ddp2_thr0.35/total_mean"), ref.LOSS)


def test_area_is_taken_after_the_batch_mean(golden: Golden) -> None:
    """A target between the images' areas tells |mean| from mean of ||."""
    areas = golden.tensor("train/area_per_image")
    target = float(areas.median())
    step = build(golden, area_target=target).train().training_step(golden.batch(), 0.0)
    ref.assert_near(step["area"], (areas.mean() - target).abs(), ref.LOSS)
    assert float((areas - target).abs().mean()) - float(step["area"].detach()) > 0.01


def test_gradients(golden: Golden) -> None:
    model = build(golden, area_target=0.25).train()
    found = ref.gradients(model, model.training_step(golden.batch(), 0.0)["loss"])
    ref.assert_gradients(found, golden.below("grad/"), rename)
    ref.assert_gradient_norms(found, golden, rename)


@pytest.mark.parametrize(("name", "prefix"), RECIPES)
def test_optimiser_groups(golden: Golden, name: RecipeName, prefix: str) -> None:
    recipe = ref.recipe("sat", name)
    model = build(golden, **recipe.options)
    ref.assert_optimiser(model, ref.adamw(model, ref.optim(recipe)), golden, prefix, rename)


@pytest.mark.parametrize(("name", "prefix"), RECIPES)
def test_optimiser_steps(golden: Golden, name: RecipeName, prefix: str) -> None:
    recipe = ref.recipe("sat", name)
    model = build(golden, **recipe.options)
    optimiser = ref.adamw(model, ref.optim(recipe))
    trace = golden.tensor(f"{prefix}/loss_trace")
    for done, expected in enumerate(trace, start=1):
        loss = model.train().training_step(golden.batch(), 0.0)["loss"]
        ref.assert_near(loss, expected, ref.LOSS)
        gradients = ref.gradients(model, loss)
        optimiser.step()
        after = golden.below(f"{prefix}/after{done}/")
        outputs = {k: after.pop(f"eval_{k}") for k in ("logits", "map") if f"eval_{k}" in after}
        if done == 1:
            ref.assert_first_step(model, gradients, after, rename, ref.optim(recipe).lr)
        else:
            ref.assert_parameters(model, after, rename)
        assert_outputs(model, golden, outputs)
    assert outputs, "the last step's outputs are part of the reference"


@torch.no_grad()
def assert_outputs(model: Any, golden: Golden, expected: dict[str, Tensor]) -> None:
    prediction = model.eval().localize(golden.tensor("images"), None)
    found = {"logits": prediction.logits, "map": prediction.maps}
    for name, value in expected.items():
        ref.assert_near(found[name], value, ref.LOGITS if name == "logits" else ref.MAPS)


def test_smoothing_kernel_is_fixed(golden: Golden) -> None:
    model = build(golden)
    ref.assert_near(model.smoothing, golden.tensor("state/weight"), 1e-8)
    ours = {id(p) for group in model.param_groups(1e-4, 0.05) for p in group["params"]}
    assert not model.smoothing.requires_grad
    assert id(model.smoothing) not in ours


def test_initial_state(shared: Path) -> None:
    method: Any = METHODS.get("sat")
    torch.manual_seed(0)
    model = method(ref.tiny_vit(), ref.CLASSES, method.Options())
    # the backbone draws its class token much smaller; the released runs start from pretrained ones
    ref.assert_initialised(model, shared, "sat", rename, skip={"cls_token"})


def test_drop_path_acts_in_both_branches(golden: Golden) -> None:
    """When all of them drop everything, only block 0 is left, which has none."""
    method: Any = METHODS.get("sat")
    vit = ref.tiny_vit(drop_path_rate=0.1)
    ref.assert_drop_path_rates(vit, golden)
    model = method(vit, ref.CLASSES, method.Options())
    ref.drop_all_but_block_0(vit)
    image = golden.tensor("images")[:1]
    with torch.no_grad():
        tokens, _ = model.train().forward_masks(image)
        shallow = ref.without_blocks(released(model), keep=1)
        expected = sat(shallow, image, ref.HEADS, acting=0).trace.tokens_norm
    ref.assert_near(tokens, expected, ref.TOKENS)


@pytest.mark.parametrize(
    ("vit_args", "acting"),
    [
        ({"img_size": 40, "patch_size": 8}, 1),
        ({"img_size": (48, 32), "patch_size": 16}, 2),
        ({"img_size": 32, "patch_size": 16, "reg_tokens": 3}, 3),
    ],
    ids=["patch 8", "not square", "registers"],
)
def test_fast_form_equals_the_literal_one(vit_args: dict[str, Any], acting: int) -> None:
    """In double precision, so that only a different formula can tell them apart."""
    method: Any = METHODS.get("sat")
    torch.manual_seed(1)
    vit = ref.as_backbone(embed_dim=32, depth=4, num_heads=4, num_classes=0, **vit_args)
    model = method(vit, 5, method.Options(spatial_blocks=acting, area_target=0.4)).double()
    model.smoothing = model.smoothing.float()  # the losses are taken in single precision
    ref.scramble(model)
    image = torch.randn(3, 3, *vit.patch_embed.img_size, dtype=torch.float64)
    batch = Batch(image, torch.tensor([0, 4, 2]), ("a", "b", "c"))
    literal = sat(released(model), image, heads=4, acting=acting)
    kernel = model.smoothing.double()
    losses = sat_losses(literal.logits, literal.grid_map, kernel, batch.label, target=0.4)
    assert float(literal.grid_map.detach().std()) > 0.05, "a flat map would compare nothing"
    for lean, full in zip(
        lean_sat(released(model), image, 4, acting), (literal.logits, literal.grid_map), strict=True
    ):
        torch.testing.assert_close(lean, full)

    tokens, masks = model.forward_masks(image)
    prediction = model.localize(image, batch.label)
    step = model.training_step(batch, 0.0)
    torch.testing.assert_close(tokens, literal.trace.tokens_norm)
    torch.testing.assert_close(torch.stack(masks), literal.trace.masks[-acting:])
    torch.testing.assert_close(prediction.maps, literal.grid_map)
    torch.testing.assert_close(prediction.logits, literal.logits)
    torch.testing.assert_close({k: step[k].double() for k in losses}, losses, rtol=1e-6, atol=1e-6)
    literal_gradients = ref.gradients(model, losses["loss"])
    ref.assert_gradients(ref.gradients(model, step["loss"]), literal_gradients, str)
