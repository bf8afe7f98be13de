"""What published weights had seen, as the tags of timm's names for them say."""

from __future__ import annotations

import re

#: parts of the tags of timm's weights, and what they say was seen
_SEEN = {
    r"dino\w*|mae|fcmae|mim|moco\w*|swav|ijepa|ssl|lvd\d+m": "self-supervised",
    r"in(21|22|12)k": "ImageNet-21k",
    r"in1k": "ImageNet-1k",
    r"openai|(laion|merged|metaclip|datacomp|dfn|openclip|quickgelu)\w*|webli": "image-text pairs",
    r"(ig|jft|yfcc)\w*": "other",
}
_SELF_SUPERVISED = "self-supervised"
#: most self-supervised trainings above were done on ImageNet alone, and it is a part of the data of
#: DINOv2 and DINOv3, LVD (Oquab et al. 2024, section 3)
_WITH_IMAGENET = {"ImageNet-1k", "ImageNet-21k", _SELF_SUPERVISED}


def pretraining_kind(tag: str | None) -> str:
    """What the weights of a backbone had seen before, by the tag of their timm name.

    ``none``, ``ImageNet-1k``, ``ImageNet-21k`` (which contains the former, and of which some take
    a part), ``self-supervised``, ``image-text pairs``, ``other``, or several of them. What a
    self-supervised training saw has no labels: only what follows ``ft`` counts beside it.
    """
    if tag is None:
        return "none"
    before, fine_tuned, after = tag.partition("_ft_")
    kinds = _kinds(before) or (["other"] if fine_tuned else [])
    if _SELF_SUPERVISED in kinds:
        kinds = [_SELF_SUPERVISED]
    kinds += [kind for kind in _kinds(after) if kind not in kinds] if fine_tuned else []
    if "ImageNet-21k" in kinds and "ImageNet-1k" in kinds:
        kinds.remove("ImageNet-1k")
    return ", ".join(kinds) or "other"


def holds_imagenet(tag: str) -> bool:
    """Whether ImageNet's training images were among those that the weights had seen."""
    return not _WITH_IMAGENET.isdisjoint(_kinds(tag))


def _kinds(tag: str) -> list[str]:
    parts = tag.split("_")
    return [kind for pattern, kind in _SEEN.items() if any(re.fullmatch(pattern, p) for p in parts)]
