"""Result records for tests: one valid record, and changes to it."""

from __future__ import annotations

from typing import Any

from wsolbench.recipe import Recipe
from wsolbench.results import Result

RECIPE: dict[str, Any] = {
    "method": "alpha",
    "dataset": "birds",
    "name": "default",
    "backbone": "vit_tiny_patch16_224.augreg_in21k",
    "holdout": 5,
    "epochs": 15,
    "batch_size": 32,
    "optim": {"name": "adamw", "lr": 1e-4},
    "schedule": {"name": "cosine"},
    "protocol": ["plain"],
    "options": {"blocks": 3},
}
RECORD: dict[str, Any] = {
    "protocol": {"name": "plain", "version": 1, "title": "Plain"},
    "figures": {"gt_known_loc": 90.0, "top1_loc": 70.0},
    "threshold": 0.35,
    "threshold_source": "held-out",
    "curves": {"thresholds": [0.0, 0.5], "box_acc_50": [10.0, 90.0]},
    "dead_maps": 0,
    "dataset": {
        "name": "birds",
        "title": "Birds",
        "classes": 30,
        "train": 750,
        "val": 150,
        "test": 894,
        "fingerprint": "0123456789ab",
    },
    "cost": {
        "parameters": 5_500_000,
        "trainable_parameters": 5_500_000,
        "macs": 1_100_000_000,
        "train_seconds": 512.5,
        "score_seconds": 20.0,
        "train_images_per_second": 26.0,
        "peak_memory_bytes": 2**31,
    },
    "environment": {
        "commit": "c0ffee" * 6 + "c0ff",
        "dirty": False,
        "python": "3.11.7",
        "torch": "2.6.0",
        "torchvision": None,
        "timm": "1.0.15",
        "numpy": "2.0.0",
        "opencv": "4.9.0",
        "platform": "Linux x86_64",
        "device_type": "cpu",
        "device": "Some CPU",
        "threads": 2,
    },
    "weights": {"name": "vit_tiny_patch16_224.augreg_in21k", "sha256": "ab" * 32},
    "pretraining": "augreg_in21k",
    "supervision": "labels",
    "created": "2026-01-02T03:04:05Z",
}


def make_result(recipe: dict[str, Any] | None = None, **changes: Any) -> Result:
    """Make a record; mappings among the changes are laid over the mappings they change.

    ``figures`` and ``curves`` replace the whole, so that figures can be taken away.
    """
    made = Recipe.model_validate({**RECIPE, **(recipe or {})})
    command = f"wsolbench run --method {made.method} --dataset {made.dataset} --seed {made.seed}"
    fields = {**RECORD, "recipe": made, "recipe_key": made.key(), "command": command}
    for name, value in changes.items():
        whole = name in ("figures", "curves") or not isinstance(value, dict)
        fields[name] = value if whole else {**RECORD[name], **value}
    return Result.model_validate(fields)
