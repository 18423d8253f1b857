"""Charades in miniature: untrimmed `motion` videos under the names and in the formats of the real thing."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from saccade.data.motion import MOTION_CLASSES, make_untrimmed
from saccade.video import open_video

SPEC: dict[str, Any] = {
    "num_videos": 8,
    "num_val_videos": 4,
    "size": (40, 52),
    "num_frames": (36, 48),
    "num_event_frames": (14, 20),
    "num_events": (1, 3),
    "fps": 24,
    "workers": 0,
}
NUM_TRAIN, NUM_TEST = 8, 4
SUBSETS = {"train": "training", "val": "testing"}
WORDS = {"train": "train", "val": "test"}


def make_source(root: Path) -> Path:
    """The videos, and lists as `saccade data motion --untrimmed` writes them."""
    return make_untrimmed(root, **SPEC)


def rows_of(source: Path, split: str) -> list[dict[str, str]]:
    with (source / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def make_official(root: Path, source: Path, *, frames: bool = False) -> Path:
    """Charades_v1_train.csv, _test.csv and _classes.txt; videos, or folders of JPEG frames."""
    lists = root / "Charades"
    lists.mkdir(parents=True)
    for split, word in WORDS.items():
        shutil.copy(source / f"{split}.csv", lists / f"Charades_v1_{word}.csv")
    names = "".join(f"c{label:03d} {name.replace('_', ' ')}\n" for label, name in enumerate(MOTION_CLASSES))
    (lists / "Charades_v1_classes.txt").write_text(names)
    if frames:
        write_frames(root / "Charades_v1_rgb", source)
    else:
        shutil.copytree(source / "videos", root / "Charades_v1_480")
    return root


def write_frames(root: Path, source: Path) -> None:
    for path in sorted((source / "videos").iterdir()):
        folder = root / path.stem
        folder.mkdir(parents=True)
        with open_video(path) as video:
            for number, frame in enumerate(video.frames(range(len(video))).numpy(), start=1):
                Image.fromarray(frame).save(folder / f"{path.stem}-{number:06d}.jpg", quality=92)


def make_json(root: Path, source: Path) -> Path:
    """charades.json of pytorch-i3d and X3D-Multigrid, and folders of frames."""
    table = {}
    for split, subset in SUBSETS.items():
        for row in rows_of(source, split):
            actions = [action.split() for action in row["actions"].split(";") if action]
            table[row["id"]] = {
                "subset": subset,
                "duration": float(row["length"]),
                "actions": [[int(label[1:]), float(start), float(end)] for label, start, end in actions],
            }
    root.mkdir(parents=True)
    (root / "charades.json").write_text(json.dumps(table))
    write_frames(root / "Charades_v1_rgb", source)
    return root
