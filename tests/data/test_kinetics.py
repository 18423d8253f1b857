"""Kinetics as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saccade.data.datasets import load_dataset, read_entries
from saccade.data.types import VideoDataset
from saccade.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def video(label: str | None, start: float, subset: str) -> dict[str, Any]:
    annotations: dict[str, Any] = {"segment": [start, start + 10.0]}
    if label is not None:
        annotations["label"] = label
    return {"annotations": annotations, "duration": 10.0, "subset": subset, "url": "https://example.org"}


def pairs(dataset: VideoDataset, root: Path) -> list[tuple[str, str]]:
    return [(str(Path(i.path).relative_to(root)), dataset.class_names[i.label]) for i in dataset.items]


def test_kinetics_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files in class folders or flat, by id alone or with six digits of start and end."""
    root = touch(
        tmp_path / "videos",
        "train/hop/aaaaaaaaaaa_000005_000015.mp4",
        "train/run/bbbbbbbbbbb.mp4",
        "ccccccccccc_000000_000010.webm",
        "ddddddddddd.mp4",
    )
    train = {"aaaaaaaaaaa": video("hop", 5, "training"), "bbbbbbbbbbb": video("run", 7, "training")}
    val = {"ccccccccccc": video("run", 0, "validation")}
    test = {"ddddddddddd": video(None, 0, "testing"), "eeeeeeeeeee": video("hop", 0, "testing")}
    for name, videos in (("train", train), ("validate", val), ("test", test)):
        (tmp_path / f"kinetics_{name}.json").write_text(json.dumps(videos))
    for path in (tmp_path, tmp_path / "kinetics_train.json"):
        dataset = load_dataset(path, "train", root=root)
        assert dataset.class_names == ("hop", "run")
        assert not dataset.multi_label
        assert pairs(dataset, root) == [
            ("train/hop/aaaaaaaaaaa_000005_000015.mp4", "hop"),
            ("train/run/bbbbbbbbbbb.mp4", "run"),
        ]
        assert [(item.start, item.end) for item in dataset.items] == [(None, None)] * 2
        val_set = load_dataset(path, "val")  # the videos are below the folder of the lists as well
        assert pairs(val_set, tmp_path) == [("videos/ccccccccccc_000000_000010.webm", "run")]
    assert "1 test videos have no label" in caplog.text
    with pytest.raises(DataError, match=r"eeeeeeeeeee_000000_000010\.mp4 \(.*test\.json:eeeeeeeeeee\)"):
        load_dataset(tmp_path, "test")
    assert len(read_entries(tmp_path, root=root)[1]) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"annotations": {"label": "x", "segment": [0, 1]}, "subset": "some"}, r"aaaaaaaaaaa: subset 'some'"),
        ({"annotations": {"segment": [0, 1]}, "subset": "training"}, r"aaaaaaaaaaa: no label"),
        ({"annotations": {"label": "x", "segment": [2]}, "subset": "training"}, r"aaa: segment \[2\]"),
        ({"annotations": 3, "subset": "training"}, r"aaaaaaaaaaa: not of the form"),
    ],
)
def test_malformed_kinetics_json(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"aaaaaaaaaaa": row}))
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "k.json", "train")
