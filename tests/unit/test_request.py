"""Requests: which recipes they ask for, and the command that asks for one of them again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import call

from wsolbench.errors import InputError
from wsolbench.recipe import Recipe
from wsolbench.request import Request, make_request

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "results" / "measured").glob("*.json"))


def request(**fields: Any) -> Request:
    return make_request({"dataset": "cub", **fields})


def again(command: str) -> Recipe:
    """Resolve a recorded command as a user would see it resolved."""
    words = [word for word in shlex.split(command) if word != "--compile"]
    assert words[:2] == ["python", "run_benchmark.py"]
    if "--device" in words:
        at = words.index("--device")
        del words[at : at + 2]
    shown = call("show", *words[2:])
    assert shown.code == 0, shown.err
    return Recipe.model_validate(yaml.safe_load(shown.out))


@pytest.mark.parametrize("file", RECORDS, ids=lambda f: f.stem)
def test_the_command_of_every_committed_record_resolves_to_its_key(file: Path) -> None:
    record = json.loads(file.read_text("utf-8"))
    assert Recipe.model_validate(record["recipe"]).key() == record["recipe_key"]
    recipe = again(record["command"])
    assert recipe.model_dump(mode="json") == Recipe.model_validate(record["recipe"]).model_dump(
        mode="json"
    )
    assert recipe.key() == record["recipe_key"]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "sat,cam", "seed": [3, 4], "epochs": 2, "batch_size": 7},
        {"method": "ts-cam", "recipe": "released", "protocol": "ts-cam,wsoleval", "seed": "1"},
        {"method": ["sat"], "set": ["optim.lr=1e-3", "options.area_target=.3"], "precision": 32},
        {"method": "sat", "backbone": "test_vit", "set": "train_labels=shuffled"},
        {"method": "center-box,sat", "epochs": 3, "batch_size": 4, "backbone": "test_vit"},
    ],
)
def test_each_command_asks_for_its_recipe_again(fields: dict[str, Any]) -> None:
    asked = request(**fields)
    recipes = asked.recipes()
    assert len(recipes) == len(asked.method) * max(1, len(asked.seed))
    for recipe in recipes:
        assert again(asked.command(recipe, "cpu")) == recipe


def test_a_command_holds_nothing_that_means_nothing() -> None:
    asked = request(method="center-box,sat", epochs=3, batch_size=4, backbone="test_vit")
    box, sat = (asked.command(recipe, "cpu") for recipe in asked.recipes())
    assert box.endswith("--method center-box --dataset cub --recipe default --device cpu --seed 0")
    assert "--backbone test_vit --epochs 3 --batch-size 4" in sat
    assert "--compile" not in sat
    compiled = asked.command(asked.recipes()[1], "cpu", compiled=True)
    assert compiled == sat.replace("--device", "--compile --device")


def test_what_is_not_trained_ignores_how() -> None:
    (plain,) = request(method="center-box").recipes()
    how = {"epochs": 9, "batch_size": 3, "set": ["optim.lr=1", "flip=0", "train_labels=shuffled"]}
    backbone = {"backbone": "resnet50.tv_in1k"}
    assert request(method="center-box", **how, **backbone).recipes() == [plain]
    assert (plain.epochs, plain.optim, plain.pretrained, plain.trained) == (0, None, False, False)
    assert plain.holdout == 5
    # what it is scored on is no matter of training
    (other,) = request(method="center-box", set=["holdout=3"]).recipes()
    assert other.key() != plain.key()


def test_weights_make_a_recipe_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.pth", "b.pth", "copy.pth")]
    for file, number in zip(files, (1, 2, 1), strict=True):
        torch.save({"x": torch.full((3,), float(number))}, file)
    files[2].write_bytes(files[0].read_bytes())
    (trained,) = request(method="sat").recipes()
    made = [request(method="sat", weights=file, epochs=7).recipes()[0] for file in files]
    assert len({recipe.key() for recipe in [trained, *made]}) == 3
    assert made[0] == made[2]
    assert (made[0].epochs, made[0].pretrained) == (0, False)


def test_a_command_names_weights_below_here_and_no_folder_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder, shown in (("here", "own file.pth"), (".", "own file.pth")):
        file = tmp_path / folder / "own file.pth"
        torch.save({"x": torch.zeros(1)}, file)
        asked = request(method="sat", weights=file)
        command = asked.command(asked.recipes()[0], "cpu")
        assert f"--weights '{shown}'" in command
        assert str(tmp_path) not in command


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"metod": "sat"}, "unknown option 'metod'; did you mean 'method'?"),
        ({"method": "sat", "seed": "x"}, "option 'seed.0': .*valid integer"),
        ({"method": "sat", "set": {"a": 1}}, "option 'set': "),
        ({"method": "sat", "recipe": "relased"}, "unknown recipe 'relased'; did you mean 'rel"),
        ({"method": "sat,cam", "weights": "f.pth"}, "--weights is the file of one method"),
        ({"method": "sat", "weights": "f.pth"}, "no weights file 'f.pth'; check --weights"),
        ({"method": "cam", "backbone": "none"}, "the method needs a backbone"),
        (
            {"method": "sat", "epochs": 2, "set": ["epochs=3"]},
            "recipe field 'epochs' is set by --epochs and by --set; drop one",
        ),
        (
            {"method": "sat", "seed": [0, 1], "set": ["seed=3"]},
            "recipe field 'seed' is set by --seed and by --set; drop one",
        ),
        (
            {"method": "sat", "batch_size": 8, "set": ["batch_size=3"]},
            "recipe field 'batch_size' is set by --batch-size and by --set; drop one",
        ),
    ],
)
def test_wrong_requests_are_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=f"^{line}") as raised:
        request(**fields).recipes()
    assert "\n" not in str(raised.value)
