"""CAM against the released forward and ResNet: stage, both strides, gradients, SGD steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from parity import golden as ref
from parity.golden import Golden
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from wsolbench.registry import METHODS
from wsolbench.types import Batch

LR, WEIGHT_DECAY = 0.01, 1e-4
STEM, PLANES = 8, (4, 8, 16, 16)


def rename(name: str) -> str:
    return name if name.startswith("fc.") else f"trunk.{name}"


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    """The ResNet arrays, with the images that they were made of."""
    arrays = {**ref.load(shared, "cam_tiny").arrays}
    arrays["images"] = ref.load(shared, "sat_tiny").arrays["images"]
    return Golden(arrays)


def narrow_resnet() -> Any:
    """Return timm's ResNet of total stride 32 with the reference's width.

    timm fixes the stem to 64 channels, so what touches it is replaced.
    """
    block: Any = Bottleneck  # timm annotates an instance and takes the class
    trunk: Any = ResNet(block, layers=(1, 1, 1, 1), channels=PLANES, num_classes=0)
    trunk.conv1 = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
    trunk.bn1 = nn.BatchNorm2d(STEM)
    first = trunk.layer1[0]
    first.conv1 = nn.Conv2d(STEM, PLANES[0], 1, bias=False)
    first.downsample[0] = nn.Conv2d(STEM, 4 * PLANES[0], 1, bias=False)
    return trunk


def build(golden: Golden, output_stride: int = 16, **options: Any) -> Any:
    """Return CAM with the reference's weights.

    Its last stage is as wide as the one before and lost its stride, so it has no projection; timm's
    had one as long as there was a stride.
    """
    method: Any = METHODS.get("cam")
    given = method.Options(output_stride=output_stride, **options)
    model = method(narrow_resnet(), ref.CLASSES, given)
    model.trunk.layer4[0].downsample = None
    ref.load_released(model, golden.below("resnet/state/"), rename)
    return model


def build_to_train(golden: Golden, **options: Any) -> Any:
    """As :func:`build`, with one of 50176 activations pushed over the ReLU's kink.

    In double precision it is -2.8e-6; the reference's rounding made it positive, and so let its
    gradient through, which moves every gradient before it by up to one per cent. The model is of
    double precision, for some processors' rounding in single pushes others over.
    """
    model = build(golden, **options).double().train()
    model.trunk.layer4[0].act3.register_forward_pre_hook(_open_one_activation)
    return model


def _open_one_activation(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    push = torch.zeros_like(args[0])
    push[2, 9, 5, 13] = 6e-6
    return (args[0] + push,)


def batch(golden: Golden) -> Batch:
    single = golden.batch()
    return replace(single, image=single.image.double())


def released_sgd(model: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.param_groups(LR, WEIGHT_DECAY), momentum=0.9, nesterov=True)


@torch.no_grad()
def test_stage(golden: Golden) -> None:
    """The formula alone, on given features."""
    method: Any = METHODS.get("cam")
    feature, label = golden.tensor("stage/feature"), golden.tensor("stage/labels")
    model = method(ref.Given(feature.shape[1]), ref.CLASSES, method.Options()).eval()
    ref.load_released(model.fc, golden.below("stage/fc_"), str)
    prediction = model.localize(feature, label)
    expected = golden.tensor("stage/cam_mean_over_channels")
    ref.assert_near(oracles.cam(feature, model.fc.weight, label), expected, ref.MAPS)
    ref.assert_near(prediction.maps, expected, ref.MAPS)
    ref.assert_near(prediction.logits, golden.tensor("stage/logits"), ref.LOGITS)


@pytest.mark.parametrize(("output_stride", "grid"), [(16, 14), (8, 28)])
@torch.no_grad()
def test_strides_are_removed_without_dilation(
    golden: Golden, output_stride: int, grid: int
) -> None:
    model = build(golden, output_stride).eval()
    image, label = golden.tensor("images"), golden.tensor("labels")
    feature = model.trunk.forward_features(image)
    prediction = model.localize(image, label)
    assert prediction.maps.shape[-2:] == (grid, grid)
    ref.assert_near(feature[:1], golden.tensor(f"resnet/{grid}/feature"), ref.TOKENS)
    ref.assert_near(prediction.logits, golden.tensor(f"resnet/{grid}/logits"), ref.LOGITS)
    ref.assert_near(prediction.maps, golden.tensor(f"resnet/{grid}/cam"), ref.MAPS)


@torch.no_grad()
def test_without_label_the_predicted_class_is_mapped(golden: Golden) -> None:
    model = build(golden).eval()
    image = golden.tensor("images")
    prediction = model.localize(image, None)
    predicted = golden.tensor("resnet/14/logits").argmax(dim=1)
    assert not torch.equal(predicted, golden.tensor("labels"))
    feature = model.trunk.forward_features(image)
    ref.assert_near(prediction.maps, oracles.cam(feature, model.fc.weight, predicted), ref.MAPS)


@torch.no_grad()
def test_mean_of_the_map_is_the_logit_without_bias(golden: Golden) -> None:
    """The identity that CAM rests on; the mean over channels leaves a factor of their number."""
    model = build(golden).eval()
    label = golden.tensor("labels")
    prediction = model.localize(golden.tensor("images"), label)
    scores = prediction.logits.gather(1, label[:, None])[:, 0] - model.fc.bias[label]
    width = model.fc.in_features
    ref.assert_near(prediction.maps.mean(dim=(1, 2)) * width, scores, ref.LOGITS)


def test_training_gradients(golden: Golden) -> None:
    model = build_to_train(golden)
    loss = model.training_step(batch(golden), 0.0)["loss"]
    ref.assert_near(loss, golden.tensor("resnet/train/loss1"), ref.LOSS)
    expected = golden.below("resnet/train/grad/")
    found = ref.gradients(model, loss)
    assert set(found) == {rename(name) for name in expected}
    ref.assert_gradients(found, expected, rename)


def test_released_groups(golden: Golden) -> None:
    """The last stage and the classifier learn ten times as fast, and everything decays."""
    model = build(golden, **ref.recipe("cam", "released").options)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: dict[str, float] = {}
    for group in model.param_groups(LR, WEIGHT_DECAY):
        assert group["weight_decay"] == WEIGHT_DECAY
        rates |= {names[id(p)]: group["lr"] for p in group["params"]}
    fast = ("trunk.layer4.", "fc.")
    assert rates == {
        name: pytest.approx(10 * LR if name.startswith(fast) else LR) for name in names.values()
    }


def test_sgd_steps(golden: Golden) -> None:
    """Parameters and running statistics after each of two steps on one batch."""
    model = build_to_train(golden, **ref.recipe("cam", "released").options)
    optimiser = released_sgd(model)
    for done in (1, 2):
        loss = model.training_step(batch(golden), 0.0)["loss"]
        ref.assert_near(loss, golden.tensor(f"resnet/train/loss{done}"), ref.LOSS)
        ref.gradients(model, loss)
        optimiser.step()
        state = model.state_dict()
        after = golden.below(f"resnet/train/after{done}/")
        assert set(state) == {rename(name) for name in after}
        for name, expected in after.items():
            ref.assert_near(state[rename(name)], expected, ref.STATE)


@pytest.mark.parametrize("side", [96, 128])
def test_matches_the_literal_map_on_other_sizes(side: int) -> None:
    method: Any = METHODS.get("cam")
    torch.manual_seed(0)
    model = method(narrow_resnet(), 5, method.Options(output_stride=16)).double().eval()
    image = torch.randn(2, 3, side, side, dtype=torch.float64)
    batch = Batch(image, torch.tensor([4, 1]), ("a", "b"))
    with torch.no_grad():
        prediction = model.localize(image, batch.label)
        feature = model.trunk.forward_features(image)
        literal = oracles.cam(feature, model.fc.weight, batch.label)
    assert literal.shape == (2, side // 16, side // 16)
    torch.testing.assert_close(prediction.maps, literal)
