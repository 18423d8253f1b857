"""Commands in the README and the pages: the command line understands each, and the README's own run."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import saccade
from saccade.cli import main
from saccade.video import write_video

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


PLACEHOLDER = re.compile(r"\[|\.\.\.$|^(RECIPE|RUN|RUN_OR_WEIGHTS|VIDEO|PATH|COMMAND|NAME|FILE|DIR|OUT)$")


class UnderstoodError(BaseException):
    """Raised in place of running a command whose arguments are understood."""


def commands(page: Path) -> list[str]:
    """The commands in the blocks of a page: fenced ones and those indented by four spaces."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:sh|bash|shell)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^ {4}.*\n)+", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S), re.M)
    if page.stem == "coming_from":  # whose commands stand in tables
        blocks += [code for code in re.findall(r"`([^`\n]*saccade [^`\n]*)`", text) if code.count(" ") > 1]
    found = []
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if "saccade " not in line:
            continue
        words = shlex.split(line, comments=True)
        if "saccade" in words[:6] and not any(PLACEHOLDER.search(word) for word in words):
            found.append(shlex.join(words[words.index("saccade") + 1 :]))
    return found


EVERY = sorted({(command, page.name) for page in PAGES for command in commands(page)})


@pytest.fixture
def parse_only(monkeypatch):
    """Commands stop once argparse has understood their arguments; packages with weights are not needed."""
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr("saccade.cli._import_plugins", lambda files: None)
    monkeypatch.setattr("saccade.training.validate.find_file", lambda name, weights: None)

    def understood(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understood)


@pytest.mark.parametrize(("command", "page"), EVERY, ids=[f"{page}: {text}" for text, page in EVERY])
@pytest.mark.usefixtures("parse_only")
def test_command_is_understood(command, page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    if words[0] == "train" and not {"--resume", "--dry-run"} & set(words):
        words += ["--dry-run", "--num-clips", "300000"]
    try:
        code = main(words)
    except UnderstoodError:
        return
    message = capsys.readouterr().err
    missing = [word for word in words[1:] if word in message and not word.startswith("-")]
    assert code == 0 or missing or "--resume" in words, f"{page}: {message}"
    assert not re.search(r"unknown|unrecognized|invalid|did you mean", message), f"{page}: {message}"


# ------------------------------------------------------------------------------------------- run end to end

SMALL = {
    "train": "--threads 1 --workers 0 --epochs 1 --optim.warmup-epochs 0 --batch-size 2 --clip.num-frames 4 "
    "--clip.crop 32 --clip.short-side 32 --augment.short-side 32 36 --augment.crop 32 --test-views 1x1 "
    "--val-every 1",
    "data preview": "--workers 0 --clip.num-frames 4 --clip.crop 32 --clip.short-side 32 "
    "--augment.short-side 32 36 --augment.crop 32 --batch-size 2",
    "data check": "--workers 1",
    "fit": "--minutes 0.1 --threads 1",
    "test": "--workers 0",
    "predict": "--workers 0",
}
"""What is added to a command so that it is quick."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Everything that the README's own commands name: clips, a new video, an archive, weights."""
    folder = tmp_path_factory.mktemp("workspace")
    draw = np.random.default_rng(0)
    for split, num_clips in (("train", 2), ("val", 1)):
        for label in ("jump", "throw"):
            (folder / "clips" / split / label).mkdir(parents=True)
            for number in range(num_clips):
                frames = draw.integers(0, 255, (20, 40, 48, 3), dtype=np.uint8)
                write_video(folder / "clips" / split / label / f"{split}{number}.mp4", frames, fps=30)
    (folder / "archive").mkdir()
    for target in ("new.mp4", "clip.mp4", "archive/one.mp4"):
        shutil.copy(folder / "clips" / "val" / "jump" / "val0.mp4", folder / target)
    torch.manual_seed(0)
    torch.save({"model_state": saccade.create_model("x3d_m").state_dict()}, folder / "X3D_M.pyth")
    return folder


def blocks_after(page: str, heading: str) -> list[list[str]]:
    """The commands of the blocks below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = text[text.index(f"## {heading}\n") :]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [[line for line in block.splitlines() if line.strip()] for block in blocks]


def run_lines(lines: list[str]) -> None:
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "saccade":
            name = " ".join(words[1:3]) if words[1] == "data" else words[1]
            assert main([*words[1:], *SMALL[name].split()]) == 0, line
        else:
            assert words[:2] == ["python", "-c"]
            exec(words[2])


def test_the_readme_s_own_clips_run(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    run_lines(blocks_after("README.md", "Your own clips")[0])
    assert (workspace / "runs/fit-clips/report.html").exists()


def test_the_readme_s_own_choices_run(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    if not (workspace / "runs/fit-clips").exists():
        run_lines(["saccade train x3d_motion --data clips --out runs/fit-clips"])
    run_lines(blocks_after("README.md", "Your own clips")[1])
    for name in ("x3d_m_finetune/report.html", "x3d_m_finetune/test", "fit-clips/rejection.json"):
        assert (workspace / "runs" / name).exists(), name


@pytest.mark.parametrize("page", ["extending.md"])
def test_examples_run_one_after_the_other(page, tmp_path):
    """In a process of their own: they register names."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
