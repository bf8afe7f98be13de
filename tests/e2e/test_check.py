"""``wsolbench check``: one line a check, and an exit code that a script can act on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsolbench.checks.datasets import CHECKS as OF_DATASETS
from wsolbench.checks.methods import CHECKS as OF_METHODS
from wsolbench.checks.outcome import name_of
from wsolbench.cli import benchmark_main, main
from wsolbench.registry import DATASETS, METHODS

LINE = re.compile(r"(passed|failed|known failure|does not apply) +([a-z0-9-]+)(: \S.*)?")


def lines_of(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Check -> status and reason, of what was printed."""
    matches = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert all(matches)
    return {m[2]: (m[1], (m[3] or "")[2:]) for m in matches if m}


def test_each_check_of_a_method_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_main(["check", "cam"]) == 0
    lines = lines_of(capsys)
    assert list(lines) == [name_of(check) for check in OF_METHODS]
    assert lines["gradients"] == ("passed", "")
    no_vit = "its default backbone is no plain vision transformer"
    assert lines["patch-sizes"] == ("does not apply", no_vit)


def test_each_check_of_a_dataset_is_a_line(
    tiny_cub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "cub", "--data-root", str(tiny_cub)]) == 0
    lines = lines_of(capsys)
    assert set(lines.values()) == {("passed", "")}
    assert list(lines) == [name_of(check) for check in OF_DATASETS]


def test_the_data_variable_is_looked_at(
    tiny_cub: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLBENCH_DATA", str(tiny_cub))
    assert main(["check", "cub"]) == 0


def test_a_failure_is_exit_code_1_and_a_known_one_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = METHODS.get("ts-cam")
    monkeypatch.setattr(cls, "localize", lambda self, image, label: None)
    assert main(["check", "ts-cam"]) == 1
    failed = {name: why for name, (status, why) in lines_of(capsys).items() if status == "failed"}
    assert failed["localization-output"] == "localize returns a NoneType"
    monkeypatch.setattr(cls, "known_failures", dict.fromkeys(failed, "still to be written"))
    assert main(["check", "ts-cam"]) == 0
    known = [name for name, line in lines_of(capsys).items() if line[0] == "known failure"]
    assert known == list(failed)


def test_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(DATASETS, "_broken", {"half-done": "half_done.py: SyntaxError"})
    for name, said in (
        ("ts-cm", "unknown method or dataset 'ts-cm'; did you mean 'ts-cam'?"),
        ("cub", f"{tmp_path}/CUB_200_2011 does not exist; --data-root must be"),
        ("half-done", "dataset 'half-done' cannot be loaded: half_done.py: SyntaxError"),
    ):
        assert main(["check", name, "--data-root", str(tmp_path)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {said}")
        assert printed.err.count("\n") == 1


def test_a_dataset_that_breaks_when_it_is_opened_fails_its_checks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(self: object, root: Path, holdout: int = 0) -> None:
        raise KeyError("images")

    monkeypatch.setattr(DATASETS.get("cub"), "__init__", broken)
    assert main(["check", "cub", "--data-root", str(tmp_path)]) == 1
    assert ("failed", "KeyError: 'images'") in lines_of(capsys).values()
