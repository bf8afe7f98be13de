"""TS-CAM against the released class: attention, maps, gradients, optimiser groups, steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import lean_ts_cam, ts_cam
from parity import golden as ref
from parity.golden import Golden
from torch import Tensor

from wsolbench.registry import METHODS
from wsolbench.types import Batch

KEY_BIAS = slice(ref.WIDTH, 2 * ref.WIDTH)


def rename(name: str) -> str:
    return name if name.startswith("head.") else f"vit.{name}"


def released(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's parameters under the names of the released checkpoint, as the oracle reads it."""
    return {name.removeprefix("vit."): value for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return ref.load(shared, "tscam_tiny")


def build(golden: Golden) -> Any:
    method: Any = METHODS.get("ts-cam")
    model = method(ref.tiny_vit(), ref.CLASSES, method.Options())
    ref.load_released(model, golden.below("state/"), rename)
    return model


def cams_of_all_classes(model: Any, image: Tensor) -> Tensor:
    """Ask for one class after the other: (B, K, h, w)."""
    labels = [torch.full((len(image),), k) for k in range(ref.CLASSES)]
    return torch.stack([model.localize(image, label).maps for label in labels], dim=1)


@pytest.mark.parametrize(
    ("name", "atol"),
    [
        ("logits", ref.LOGITS),
        ("cls_attention", ref.MAPS),
        ("cls_attention_sum", ref.MAPS),
        ("attn_full_img0_block11", ref.MAPS),
        ("tokens_norm", ref.TOKENS),
        ("semantic_map", 5e-5),
        ("cams", ref.CAMS),
        ("block_out_img0", 5e-5),
    ],
)
def test_oracle_reproduces_the_released_pass(golden: Golden, name: str, atol: float) -> None:
    with torch.no_grad():
        out = ts_cam(golden.below("state/"), golden.tensor("images"), ref.HEADS)
    found = {
        "logits": out.logits,
        "cls_attention": out.trace.attention.mean(dim=2)[:, :, 0, 1:],
        "cls_attention_sum": out.grid_map,
        "attn_full_img0_block11": out.trace.attention[11, 0],
        "tokens_norm": out.trace.tokens_norm,
        "semantic_map": out.semantic_map,
        "cams": out.cams,
        "block_out_img0": out.trace.block_out[:, 0],
    }
    ref.assert_near(found[name], golden.tensor(f"eval/{name}"), atol)


@torch.no_grad()
def test_eval_pass(golden: Golden) -> None:
    model = build(golden).eval()
    image = golden.tensor("images")
    tokens, attention = model.forward_attention(image)
    ref.assert_near(tokens, golden.tensor("eval/tokens_norm"), ref.TOKENS)
    ref.assert_near(attention.flatten(2), golden.tensor("eval/cls_attention"), ref.MAPS)
    ref.assert_near(attention.sum(dim=0), golden.tensor("eval/cls_attention_sum"), ref.MAPS)
    ref.assert_near(cams_of_all_classes(model, image), golden.tensor("eval/cams"), ref.CAMS)


@torch.no_grad()
def test_localize_takes_the_label_or_the_predicted_class(golden: Golden) -> None:
    model = build(golden).eval()
    image, label = golden.tensor("images"), golden.tensor("labels")
    given = model.localize(image, label)
    ref.assert_near(given.maps, golden.tensor("eval64/cams_true_class"), ref.CAMS)
    ref.assert_near(given.logits, golden.tensor("eval64/logits"), ref.LOGITS)
    predicted = golden.tensor("eval/logits").argmax(dim=1)
    expected = golden.tensor("eval/cams")[torch.arange(len(image)), predicted]
    ref.assert_near(model.localize(image, None).maps, expected, ref.CAMS)
    assert not torch.equal(predicted, label)


def test_loss_and_gradients(golden: Golden) -> None:
    model = build(golden).train()
    loss = model.training_step(golden.batch(), 0.0)["loss"]
    ref.assert_near(loss, golden.tensor("loss64/total"), ref.LOSS)
    found = ref.gradients(model, loss)
    ref.assert_gradients(found, golden.below("grad/"), rename)
    ref.assert_gradient_norms(found, golden, rename)


def test_optimiser_groups(golden: Golden) -> None:
    model = build(golden)
    optimiser = ref.adamw(model, ref.optim(ref.recipe("ts-cam", "released")))
    ref.assert_optimiser(model, optimiser, golden, "opt", rename)


def test_optimiser_steps(golden: Golden) -> None:
    model = build(golden).train()
    optim = ref.optim(ref.recipe("ts-cam", "released"))
    optimiser = ref.adamw(model, optim)
    for done, expected in enumerate(golden.tensor("opt/loss_trace"), start=1):
        loss = model.training_step(golden.batch(), 0.0)["loss"]
        ref.assert_near(loss, expected, ref.LOSS)
        gradients = ref.gradients(model, loss)
        optimiser.step()
        if done == 1:
            after = golden.below("opt/after1/")
            ref.assert_first_step(model, gradients, after, rename, optim.lr)
    after = golden.below("opt/after3/")
    with torch.no_grad():
        prediction = model.eval().localize(golden.tensor("images"), None)
    ref.assert_near(prediction.logits, after.pop("eval_logits"), ref.LOGITS)
    unseen = model.vit.blocks[9].attn.qkv.bias.data[KEY_BIAS]
    unseen.copy_(after["blocks.9.attn.qkv.bias"][KEY_BIAS])  # softmax does not depend on it
    ref.assert_parameters(model, after, rename)


def test_initial_state(shared: Path) -> None:
    method: Any = METHODS.get("ts-cam")
    torch.manual_seed(0)
    model = method(ref.tiny_vit(), ref.CLASSES, method.Options())
    # the backbone draws its class token much smaller; the released runs start from pretrained ones
    ref.assert_initialised(model, shared, "tscam", rename, skip={"cls_token"})


def test_drop_path_acts_in_both_branches(golden: Golden) -> None:
    """When all of them drop everything, only block 0 is left, which has none."""
    method: Any = METHODS.get("ts-cam")
    vit = ref.tiny_vit(drop_path_rate=0.1)
    ref.assert_drop_path_rates(vit, golden)
    model = method(vit, ref.CLASSES, method.Options())
    ref.drop_all_but_block_0(vit)
    batch = golden.batch(0, 1)
    with torch.no_grad():
        shallow = ref.without_blocks(released(model), keep=1)
        expected = F.cross_entropy(ts_cam(shallow, batch.image, ref.HEADS).logits, batch.label)
    ref.assert_near(model.train().training_step(batch, 0.0)["loss"], expected, ref.LOSS)


@pytest.mark.parametrize(
    "vit_args",
    [
        {"img_size": 40, "patch_size": 8},
        {"img_size": (48, 32), "patch_size": 16},
        {"img_size": 32, "patch_size": 16, "reg_tokens": 3},
    ],
    ids=["patch 8", "not square", "registers"],
)
def test_fast_form_equals_the_literal_one(vit_args: dict[str, Any]) -> None:
    """In double precision, so that only a different formula can tell them apart."""
    method: Any = METHODS.get("ts-cam")
    torch.manual_seed(1)
    vit = ref.as_backbone(embed_dim=32, depth=4, num_heads=4, num_classes=0, **vit_args)
    model = method(vit, 5, method.Options()).double()
    ref.scramble(model)
    image = torch.randn(3, 3, *vit.patch_embed.img_size, dtype=torch.float64)
    batch = Batch(image, torch.tensor([0, 4, 2]), ("a", "b", "c"))
    literal = ts_cam(released(model), image, heads=4)
    assert float(literal.grid_map.detach().std()) > 0.05, "flat attention would compare nothing"
    logits, maps = lean_ts_cam(released(model), image, 4, train=False)
    torch.testing.assert_close(logits, literal.logits)
    torch.testing.assert_close(maps, literal.cams)

    tokens, attention = model.forward_attention(image)
    prediction = model.localize(image, batch.label)
    torch.testing.assert_close(tokens, literal.trace.tokens_norm)
    torch.testing.assert_close(attention.sum(dim=0), literal.grid_map)
    torch.testing.assert_close(prediction.maps, literal.cams[torch.arange(3), batch.label])
    torch.testing.assert_close(prediction.logits, literal.logits)
    loss = F.cross_entropy(literal.logits, batch.label)
    step = model.training_step(batch, 0.0)["loss"]
    ref.assert_near(step, loss.detach(), ref.LOSS)
    ref.assert_gradients(ref.gradients(model, step), ref.gradients(model, loss), str)
