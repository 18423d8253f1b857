"""Lists, tables, label files and annotations, damaged: they load and make sense, or there is one error."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.fuzz import children
from tools.fuzz.mutations import mutate
from tools.fuzz.part import LOADED, REFUSED, call
from tools.fuzz.texts import damage_json, damage_text

from saccade.data import class_names, load_dataset
from saccade.data.ava_files import read_actions, read_boxes, read_exclusions, read_frame_list, read_people

_GOOD = {
    LOADED: "a data set whose labels lie within its classes, or names",
    REFUSED: "an error of one line for at least one split",
}
_CLASSES = ("archery", "bowling", "salsa dancing")
_SOMETHING = ("Pushing something from left to right", "Pushing something from right to left")


def _clips() -> list[tuple[str, int]]:
    return [
        (f"{label}/v_{label}_g{group:02d}_c{clip:02d}.mp4", label)
        for label in range(3)
        for group in (1, 2, 3)
        for clip in (1, 2)
    ]


def _formats() -> dict[str, tuple[str, dict[str, str]]]:
    """Name -> what is loaded, and the text files of it; the first one, or any, is damaged."""
    clips = _clips()
    kinetics = [
        f"{_CLASSES[label]},id{i:08d}xy,{i},{i + 10},{'train' if i % 3 else 'validate'}"
        for i, (_, label) in enumerate(clips)
    ]
    something = [
        {
            "id": str(i + 1),
            "label": "a cup",
            "template": _SOMETHING[i % 2].replace("something", "[something]"),
        }
        for i in range(8)
    ]
    charades = {
        f"V{i:04d}": {
            "subset": "training" if i < 6 else "testing",
            "duration": 20.5,
            "actions": [[i % 157, 1.0, 9.5], [12, 0.0, 20.0]],
        }
        for i in range(8)
    }
    boxes = "".join(f"v{i % 2},{902 + i:04d},0.1,0.2,0.5,0.9,{(4, 12)[i % 2]},{i}\n" for i in range(8))
    lines = "".join
    return {
        "plain": (
            "train.txt",
            {
                "train.txt": lines(f"{p} {n}\n" for p, n in clips[::2]),
                "val.txt": lines(f"{p} {n}\n" for p, n in clips[1::2]),
            },
        ),
        "names": ("list.csv", {"list.csv": lines(f"{p},{_CLASSES[n]}\n" for p, n in clips)}),
        "table": (
            "",
            {
                "clips.csv": "path,label,group,split\n"
                + lines(f"{p},{n},{p[:-8]},{'val' if 'g03' in p else 'train'}\n" for p, n in clips)
            },
        ),
        "tabs": (
            "all.tsv",
            {"all.tsv": "video_path\tclass_name\n" + lines(f"{p}\t{_CLASSES[n]}\n" for p, n in clips)},
        ),
        "several": ("many.csv", {"many.csv": lines(f"{p} {n} {(n + 1) % 3}\n" for p, n in clips)}),
        "segments": (
            "cut.csv",
            {
                "cut.csv": "path,label,start,end\n"
                + lines(f"{p},{n},{i / 2},{i / 2 + 1.5}\n" for i, (p, n) in enumerate(clips))
            },
        ),
        "counted": ("counted.txt", {"counted.txt": lines(f"{p} 30 {n}\n" for p, n in clips)}),
        "kinetics": (
            "kinetics.csv",
            {"kinetics.csv": "label,youtube_id,time_start,time_end,split\n" + "\n".join(kinetics) + "\n"},
        ),
        "ucf": (
            "trainlist01.txt",
            {
                "trainlist01.txt": lines(f"{p} {n + 1}\n" for p, n in clips),
                "testlist01.txt": lines(f"{p}\n" for p, _ in clips[::3]),
                "classInd.txt": "1 0\n2 1\n3 2\n",
            },
        ),
        "frames": ("frames.txt", {"frames.txt": lines(f"frames/{i} {3} {i % 2}\n" for i in range(4))}),
        "something v1": (
            "",
            {
                "something-something-v1-train.csv": lines(f"{i};{_SOMETHING[i % 2]}\n" for i in range(1, 7)),
                "something-something-v1-validation.csv": f"7;{_SOMETHING[0]}\n8;{_SOMETHING[1]}\n",
                "something-something-v1-labels.csv": "\n".join(class_names("something_v1")) + "\n",
            },
        ),
        "something v2": (
            "",
            {
                "something-something-v2-train.json": json.dumps(something[:6]),
                "something-something-v2-validation.json": json.dumps(something[6:]),
                "something-something-v2-labels.json": json.dumps(
                    {n: str(i) for i, n in enumerate(class_names("something_v2"))}
                ),
            },
        ),
        "charades json": ("charades.json", {"charades.json": json.dumps(charades)}),
        "charades csv": (
            "",
            {
                "Charades_v1_train.csv": "id,length,actions\n"
                + lines(f"V{i:04d},20.5,c{i:03d} 1.0 9.5;c012 0.0 20.0\n" for i in range(6)),
                "Charades_v1_test.csv": "id,length,actions\nV0006,20.5,c001 0 3\nV0007,9.0,\n",
                "Charades_v1_classes.txt": lines(f"c{i:03d} action {i}\n" for i in range(157)),
            },
        ),
        "ava boxes": ("ava.csv", {"ava.csv": boxes}),
        "ava people": (
            "people.csv",
            {"people.csv": lines(f"v0,{902 + i:04d},0.1,0.2,0.5,0.9,,0.9{i}\n" for i in range(6))},
        ),
        "ava actions": (
            "actions.pbtxt",
            {"actions.pbtxt": lines(f'item {{\n  name: "act {i}"\n  id: {i}\n}}\n' for i in (4, 12, 14))},
        ),
        "ava exclusions": ("excluded.csv", {"excluded.csv": "v0,0903\nv1,0904\n"}),
        "ava frames": (
            "frame_list.csv",
            {
                "frame_list.csv": "original_vido_id video_id frame_id path labels\n"
                + lines(f'v0 0 {i} v0/v0_{i + 1:06d}.jpg ""\n' for i in range(6))
            },
        ),
        "class names": ("names.txt", {"names.txt": "\n".join(_CLASSES) + "\n"}),
        "numbered names": (
            "classes.txt",
            {"classes.txt": lines(f"{i} {name}\n" for i, name in enumerate(_CLASSES))},
        ),
        "names json": (
            "names.json",
            {"names.json": json.dumps({name: i for i, name in enumerate(_CLASSES)})},
        ),
        "names csv": (
            "names.csv",
            {"names.csv": "id,name\n" + lines(f"{i},{name}\n" for i, name in enumerate(_CLASSES))},
        ),
    }


_READERS: dict[str, Callable[[Path], Any]] = {
    "ava boxes": lambda path: read_boxes(path, scored=False),
    "ava people": read_people,
    "ava actions": read_actions,
    "ava exclusions": read_exclusions,
    "ava frames": read_frame_list,
    **dict.fromkeys(("class names", "numbered names", "names json", "names csv"), class_names),
}


class Cases:
    """One text file of a data set damaged; the videos are there, as empty names."""

    good = _GOOD

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._formats = _formats()
        for format_name in self._formats:  # imports the readers
            _, target = self._written(format_name, folder / "warm", None)
            self._asked(format_name, target)
            shutil.rmtree(folder / "warm")

    def _written(self, name: str, folder: Path, rng: random.Random | None) -> tuple[list[str], Path]:
        """The files of a format in ``folder``, one of them damaged; what was done, and what to load."""
        loaded, files = self._formats[name]
        places = [clip for clip, _ in _clips()] if "something" not in name and "charades" not in name else []
        places += [f"frames/{i}/{n:05d}.jpg" for i in range(4) for n in (1, 2, 3)] if name == "frames" else []
        places += (
            [f"20bn-something-something-v1/{i}/00001.jpg" for i in range(1, 9)]
            if name == "something v1"
            else []
        )
        places += (
            [f"20bn-something-something-v2/{i}.webm" for i in range(1, 9)] if name == "something v2" else []
        )
        places += [f"Charades_v1_480/V{i:04d}.mp4" for i in range(8)] if "charades" in name else []
        places += [f"id{i:08d}xy_{i:06d}_{i + 10:06d}.mp4" for i in range(18)] if name == "kinetics" else []
        for place in places:
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0")
        folder.mkdir(parents=True, exist_ok=True)
        steps = [name]
        damaged = rng.choice(list(files)) if rng is not None else ""
        for file, text in files.items():
            data = text.encode()
            if file == damaged and rng is not None:
                data, step = _damage(text, Path(file).suffix, rng)
                steps.append(f"{file}: {step}")
            (folder / file).write_bytes(data)
        return steps, folder / loaded

    def _asked(self, name: str, path: Path) -> list[tuple[str, str]]:
        reader = _READERS.get(name)
        if reader is not None:
            return [call(lambda: reader(path))]
        found = []
        for split in ("train", "val", "test", "all"):
            children.stage(split)
            found.append(call(lambda split=split: _checked(load_dataset(path, split))))
        return found

    def run(self, case: int) -> dict[str, Any]:
        """Write the files of a case and load them."""
        folder = self._folder / f"case_{case}"
        rng = random.Random(case)
        name = rng.choice(list(self._formats))
        steps, path = self._written(name, folder, rng)
        try:
            found = self._asked(name, path)
        finally:
            shutil.rmtree(folder)
        failed = [answer for answer in found if answer[0] not in (LOADED, REFUSED)]
        refused = [answer for answer in found if answer[0] == REFUSED]
        outcome, message = (failed or refused or found)[0]
        return {"steps": steps, "outcome": outcome, "detail": message[-400:]}

    def describe(self, case: int) -> dict[str, Any]:
        folder = self._folder / f"described_{case}"
        rng = random.Random(case)
        try:
            return {"steps": self._written(rng.choice(list(self._formats)), folder, rng)[0]}
        finally:
            shutil.rmtree(folder)

    def keep(self, case: int) -> None:
        rng = random.Random(case)
        self._written(rng.choice(list(self._formats)), self._folder / "failures" / str(case), rng)


def _damage(text: str, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    kind = rng.random()
    if kind < 0.15:
        data, steps = mutate(text.encode(), suffix, rng)
        return data, "; ".join(steps)
    if kind < 0.25:
        encoding = rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037", "utf-7"))
        return text.encode(encoding), encoding
    damaged, step = (damage_json if suffix == ".json" else damage_text)(text, rng)
    return damaged.encode("utf-8", "surrogatepass"), step


def _checked(dataset: Any) -> None:
    """Raise unless the labels lie within the classes; -1 is none."""
    names = dataset.class_names
    assert len(dataset) > 0
    assert len(names) < 100_000, len(names)
    for item in dataset.items:
        labels = [item.label] if isinstance(item.label, int) and item.label != -1 else []
        labels += [action.label for action in getattr(item, "actions", ())]
        assert all(0 <= label < len(names) for label in labels), (item, names)
