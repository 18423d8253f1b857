"""A miniature of AVA in its own formats: people are patches of noise that flicker, or stand still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from saccade.video import write_video

SIZE = (48, 64)
PEOPLE = ((0.02, 0.1, 0.4, 0.95), (0.55, 0.05, 0.97, 0.9))
STANDS, DANCES = 12, 4
PBTXT = "".join(
    f'item {{\n  name: "{name}"\n  id: {number}\n}}\n'
    for number, name in ((DANCES, "dance"), (STANDS, "stand"), (14, "walk"))
)


def make_video(rng: np.random.Generator, dancing: tuple[bool, bool], num_frames: int) -> np.ndarray:
    frames = np.full((num_frames, *SIZE, 3), 90, np.uint8)
    for (x1, y1, x2, y2), moves in zip(PEOPLE, dancing, strict=True):
        top, bottom, left, right = (int(v) for v in (y1 * SIZE[0], y2 * SIZE[0], x1 * SIZE[1], x2 * SIZE[1]))
        shade = rng.integers(120, 140)
        for number, frame in enumerate(frames):
            bright = 250 if moves and number % 4 < 2 else shade
            frame[top:bottom, left:right] = (bright, shade, 20 if moves else shade)
    return frames


def make_ava(
    root: Path, *, num_videos: int = 4, seconds: tuple[int, ...] = (902, 903, 904), lists: bool = True
) -> Path:
    """Folders of frames for training, a video file for validation, and the annotations of both."""
    rng = np.random.default_rng(0)
    notes = root / "annotations"
    notes.mkdir(parents=True)
    (notes / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(PBTXT)
    (notes / "ava_val_excluded_timestamps_v2.2.csv").write_text("val0,0903\n")
    (notes / "ava_train_excluded_timestamps_v2.2.csv").write_text("")
    num_frames = (max(seconds) - 900) * 30 + 20
    listed = ["original_vido_id video_id frame_id path labels"]
    for split in ("train", "val"):
        rows, found = [], []
        for number in range(num_videos if split == "train" else 2):
            name = f"{split}{number}"
            dancing = (bool(number & 1), not bool(number & 1))
            frames = make_video(rng, dancing, num_frames)
            if split == "train":
                folder = root / "frames" / name
                folder.mkdir(parents=True)
                for i, frame in enumerate(frames):
                    Image.fromarray(frame).save(folder / f"{name}_{i + 1:06d}.jpg", quality=90)
                    listed.append(f'{name} {number} {i} {name}/{name}_{i + 1:06d}.jpg ""')
            else:
                (root / "videos").mkdir(exist_ok=True)
                write_video(root / "videos" / f"{name}.mp4", torch.from_numpy(frames), fps=30)
            for second in seconds:
                for person, (box, moves) in enumerate(zip(PEOPLE, dancing, strict=True)):
                    text = ",".join(f"{value:.3f}" for value in box)
                    rows.append(f"{name},{second:04d},{text},{DANCES if moves else STANDS},{person}")
                    near = ",".join(
                        f"{value + shift:.3f}" for value, shift in zip(box, (0.01, 0, 0, -0.02), strict=True)
                    )
                    found.append(f"{name},{second:04d},{near},,{0.95 - 0.01 * person:.3f}")
                found.append(f"{name},{second:04d},0.400,0.400,0.500,0.600,,0.300")
        (notes / f"ava_{split}_v2.2.csv").write_text("\n".join(rows) + "\n")
        if split == "val":
            (notes / "ava_val_predicted_boxes.csv").write_text("\n".join(found) + "\n")
    if lists:
        (root / "frame_lists").mkdir()
        (root / "frame_lists" / "train.csv").write_text("\n".join(listed) + "\n")
    return root
