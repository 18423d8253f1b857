"""Something-Something in miniature: clips of `motion` under class names of the real thing, in its formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.data import class_names
from saccade.data.motion import render_clip
from saccade.video import write_video

CLASSES = {
    "slide_right": "Pushing something from left to right",
    "slide_left": "Pushing something from right to left",
    "approach": "Approaching something with your camera",
    "recede": "Moving away from something with your camera",
}
SIZE = (40, 52)
NUM_TRAIN, NUM_VAL = 3, 2  # of each class


def clips() -> list[tuple[str, str, str, np.ndarray]]:
    """(split, id, class name, frames (T, H, W, 3)); ids are scattered as the real ones are."""
    made = []
    number = 7
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for index in range(count):
            for motion, name in CLASSES.items():
                frames = render_clip(motion, seed=1, split=split, index=index, size=SIZE, num_frames=(9, 14))
                made.append((split, str(number), name, frames))
                number += 13
    return made


def write_frames(folder: Path, frames: np.ndarray, template: str = "{:05d}.jpg") -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / template.format(number), quality=90)


def make_v1(root: Path) -> Path:
    """JPEG folders and CSV files."""
    made = clips()
    for _, video, _, frames in made:
        write_frames(root / "20bn-something-something-v1" / video, frames)
    for split, word in (("train", "train"), ("val", "validation")):
        rows = [f"{video};{name}\n" for own, video, name, _ in made if own == split]
        (root / f"something-something-v1-{word}.csv").write_text("".join(rows))
    (root / "something-something-v1-test.csv").write_text("4\n5\n")
    (root / "something-something-v1-labels.csv").write_text("\n".join(class_names("something_v1")) + "\n")
    return root


def make_v2(root: Path, *, later: bool = False) -> Path:
    """webm (VP9) and JSON files; ``later``: under the names of the later archive."""
    made = clips()
    for _, video, _, frames in made:
        place = root / "20bn-something-something-v2" / f"{video}.webm"
        place.parent.mkdir(parents=True, exist_ok=True)
        options = {"deadline": "realtime", "cpu-used": "8"}
        write_video(place, frames, fps=12, codec="libvpx-vp9", crf=20, options=options)
    labels = root / "labels" if later else root
    labels.mkdir(exist_ok=True)
    prefix = "" if later else "something-something-v2-"
    for split, word in (("train", "train"), ("val", "validation")):
        rows = [
            {
                "id": video,
                "label": name.replace("something", "a blue cup"),
                "template": name.replace("something", "[something]"),
                "placeholders": ["a blue cup"],
            }
            for own, video, name, _ in made
            if own == split
        ]
        (labels / f"{prefix}{word}.json").write_text(json.dumps(rows))
    (labels / f"{prefix}test.json").write_text(json.dumps([{"id": "1420"}, {"id": "3000"}]))
    numbered = {name: str(number) for number, name in enumerate(class_names("something_v2"))}
    (labels / f"{prefix}labels.json").write_text(json.dumps(numbered))
    return root


def make_tsm(root: Path, template: str) -> Path:
    """Folders extracted from videos and ``folder num_frames label`` lists, with TSM's category.txt."""
    names = class_names("something_v2")
    (root / "lists").mkdir(parents=True)
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for split, video, name, frames in clips():
        write_frames(root / "frames" / video, frames, template)
        rows[split].append(f"{video} {len(frames)} {names.index(name)}\n")
    for split, lines in rows.items():
        (root / "lists" / f"{split}_videofolder.txt").write_text("".join(lines))
    (root / "lists" / "category.txt").write_text("\n".join(names))
    return root
