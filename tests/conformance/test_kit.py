"""The kit itself: sound plugins pass, and each check finds the faults that it is there for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import data_mutants
import method_mutants
import pytest
from PIL import Image

from wsolbench.checks import Check, Outcome, Status, dataset_checks, method_checks
from wsolbench.checks.datasets import CHECKS as OF_DATASETS
from wsolbench.checks.methods import CHECKS as OF_METHODS
from wsolbench.checks.methods import SMALL_VIT, small_backbone
from wsolbench.checks.outcome import FailedError, name_of
from wsolbench.dataset import Dataset, Split
from wsolbench.errors import InputError
from wsolbench.inputs import check_boxes
from wsolbench.method import Method
from wsolbench.protocol import load_protocol
from wsolbench.registry import DATASETS, METHODS

NAME = "under-test"


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins that are registered under this fixture are forgotten after the test."""
    for registry in (METHODS, DATASETS):
        registry.discover()
        monkeypatch.setattr(registry, "_plugins", dict(registry._plugins))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_mutants.draw_sound_data(tmp_path_factory.mktemp("sound"))


def of_method(cls: type[Method]) -> dict[str, Check[[]]]:
    METHODS.register(NAME, cls)
    return {check.name: check for check in method_checks(NAME)}


def of_dataset(cls: type[Dataset]) -> dict[str, Check[[Path]]]:
    DATASETS.register(NAME, cls)
    return {check.name: check for check in dataset_checks(NAME)}


# ----------------------------------------------------------------------------------- sound plugins


@pytest.mark.usefixtures("register")
def test_a_sound_method_passes_every_check() -> None:
    outcomes = {name: check.run() for name, check in of_method(method_mutants.Sound).items()}
    wanted = dict.fromkeys(map(name_of, OF_METHODS), Outcome(Status.PASSED))
    wanted["boxes-in-training"] = Outcome(Status.INAPPLICABLE, "it declares no boxes")
    assert outcomes == wanted


@pytest.mark.usefixtures("register")
def test_a_method_without_parameters_skips_what_is_about_training() -> None:
    outcomes = {
        name: check.run() for name, check in of_method(method_mutants.Parameterless).items()
    }
    skipped = {n: o.reason for n, o in outcomes.items() if o.status is Status.INAPPLICABLE}
    training = (
        "training-output",
        "gradients",
        "parameter-groups",
        "optimiser-step",
        "batch-coupling",
        "several-processes",
    )
    assert skipped == {
        **dict.fromkeys(training, "it has no trainable parameter"),
        "boxes-in-training": "it declares no boxes",
        "predicted-class": "it has no logits",
    }
    passed = {name for name, outcome in outcomes.items() if outcome.status is Status.PASSED}
    assert passed == outcomes.keys() - skipped.keys()


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize("cls", [data_mutants.SoundData, data_mutants.MaskData])
def test_a_sound_dataset_passes_every_check(cls: type[Dataset], root: Path) -> None:
    outcomes = {name: check.run(root) for name, check in of_dataset(cls).items()}
    wanted = dict.fromkeys(map(name_of, OF_DATASETS), Outcome(Status.PASSED))
    if cls is data_mutants.MaskData:
        wanted["boxes"] = Outcome(Status.INAPPLICABLE, "it has masks and no boxes")
    assert outcomes == wanted


@pytest.mark.usefixtures("register")
def test_a_class_of_one_image_cannot_be_held_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(data_mutants.COUNTS, "train", 1)
    checks = of_dataset(data_mutants.SoundData)
    assert checks["holdout"].run(root).status is Status.INAPPLICABLE
    assert checks["disjoint-splits"].run(root).status is Status.PASSED


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("resnet50.tv_in1k", ("test_resnet", {})),
        ("swin_tiny_patch4_window7_224", ("test_resnet", {})),
        ("vit_base_patch14_reg4_dinov2", ("vit_base_patch14_reg4_dinov2", {"a": 1, **SMALL_VIT})),
        (
            "deit_tiny_distilled_patch16_224",
            ("deit_tiny_distilled_patch16_224", {"a": 1, **SMALL_VIT}),
        ),
        ("not-of-timm", ("not-of-timm", {"a": 1})),
    ],
)
def test_the_family_of_the_backbone_decides(name: str, small: tuple[str, dict[str, Any]]) -> None:
    assert small_backbone(name, {"a": 1}) == small


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize("cls", method_mutants.FAULTS, ids=lambda cls: cls.__name__)
def test_a_fault_of_a_method_is_found(cls: type[Method]) -> None:
    name, said = method_mutants.FAULTS[cls]
    outcome = of_method(cls)[name].run()
    assert outcome.status is Status.FAILED
    assert said in outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize("cls", data_mutants.FAULTS, ids=lambda cls: cls.__name__)
def test_a_fault_of_a_dataset_is_found(cls: type[Dataset], root: Path) -> None:
    name, said = data_mutants.FAULTS[cls]
    outcome = of_dataset(cls)[name].run(root)
    assert outcome.status is Status.FAILED
    assert said in outcome.reason
    assert "\n" not in outcome.reason


def test_every_check_has_a_fault_to_find() -> None:
    assert {name for name, _ in method_mutants.FAULTS.values()} == set(map(name_of, OF_METHODS))
    assert {name for name, _ in data_mutants.FAULTS.values()} == set(map(name_of, OF_DATASETS))


# ---------------------------------------------------------------------------------- known failures


@pytest.mark.usefixtures("register")
def test_a_declared_failure_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        method_mutants.FirstClass, "known_failures", {"predicted-class": "as published"}
    )
    check = of_method(method_mutants.FirstClass)["predicted-class"]
    assert check.run() == Outcome(Status.KNOWN, "as published")
    with pytest.raises(pytest.xfail.Exception, match="as published"):
        check()


@pytest.mark.usefixtures("register")
@pytest.mark.parametrize(
    ("cls", "name", "status"),
    [
        (method_mutants.Sound, "predicted-class", "passed"),
        (method_mutants.Parameterless, "gradients", "does not apply"),
    ],
)
def test_a_declaration_that_is_out_of_date_fails(
    monkeypatch: pytest.MonkeyPatch, cls: type[Method], name: str, status: str
) -> None:
    monkeypatch.setattr(cls, "known_failures", {name: "of old"})
    outcome = of_method(cls)[name].run()
    assert outcome.status is Status.FAILED
    said = f"known_failures declares this ('of old') but the check {status}; remove the declaration"
    assert outcome.reason == said


@pytest.mark.usefixtures("register")
def test_a_dataset_can_declare_too(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(data_mutants.BoxOutside, "known_failures", {"boxes": "so annotated"})
    assert of_dataset(data_mutants.BoxOutside)["boxes"].run(root).status is Status.KNOWN


# -------------------------------------------------------------------------------------- as a test


@pytest.mark.usefixtures("register")
def test_a_check_that_is_called_is_a_test() -> None:
    of_method(method_mutants.Sound)["declarations"]()
    with pytest.raises(pytest.skip.Exception, match="no trainable parameter"):
        of_method_again(method_mutants.Parameterless)["gradients"]()


@pytest.mark.usefixtures("register")
def test_a_failure_keeps_the_traceback_of_the_plugin() -> None:
    with pytest.raises(FailedError, match="RuntimeError: ") as raised:
        of_method(method_mutants.GridWrittenOut)["image-sizes"]()
    assert raised.traceback
    assert isinstance(raised.value.__cause__, RuntimeError)


def of_method_again(cls: type[Method]) -> dict[str, Check[[]]]:
    METHODS._plugins.pop(NAME)
    return of_method(cls)


@pytest.fixture
def boxed_for_test_alone(tiny_folder: Path, tmp_path: Path) -> Path:
    """Pictures of the user's own of which only those for testing have boxes."""
    root = Path(shutil.copytree(tiny_folder, tmp_path / "own"))
    listing = root / "boxes.csv"
    lines = listing.read_text("utf-8").splitlines()
    listing.write_text("\n".join([lines[0], *(x for x in lines if x.startswith("test/"))]))
    return root


def test_data_without_a_holdout_are_sound_where_none_is_asked_for(
    boxed_for_test_alone: Path,
) -> None:
    found = {check.name: check.run(boxed_for_test_alone) for check in dataset_checks("folder")}
    failed = {name: o.reason for name, o in found.items() if o.status is Status.FAILED}
    assert failed == {}
    assert found["holdout"].status.value == "does not apply"


def test_a_mask_does_not_make_up_for_a_box_in_the_holdout(boxed_for_test_alone: Path) -> None:
    dataset = DATASETS.get("folder")
    for image in sorted(boxed_for_test_alone.rglob("*.jpg")):
        mask = boxed_for_test_alone / "masks" / image.relative_to(boxed_for_test_alone)
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as opened:
            Image.new("L", opened.size, 255).save(mask.with_suffix(".png"))
    with pytest.raises(InputError, match="holdout"):
        dataset(boxed_for_test_alone, 1)


def test_held_out_images_without_boxes_are_refused_before_any_training(tmp_path: Path) -> None:
    data = data_mutants.BoxesOfTestAlone(data_mutants.draw_sound_data(tmp_path), 1)
    splits = {split: data.samples(split) for split in get_args(Split)}
    protocols = [load_protocol("standard")]
    with pytest.raises(InputError, match="has no box, so that it cannot choose a threshold"):
        check_boxes(splits, protocols)
    check_boxes(splits, [load_protocol("wsoleval")])
