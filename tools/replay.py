"""Record the outputs of Saccade, and compare two recordings bit for bit.

A refactoring is correct if the recordings of the old and the new source tree are equal:

    PYTHONPATH=old/src python tools/replay.py record old.json
    PYTHONPATH=new/src python tools/replay.py record new.json
    python tools/replay.py compare old.json new.json

Recorded, all on one CPU thread with fixed seeds:

* logits (evaluation and training mode) and gradients of every registered model, at small sizes;
* frames of `saccade.open_video`;
* the input clips of a model in a `saccade.Predictor`, and its scores;
* training runs of each task: all numbers in metrics.jsonl, and the final weights;
* results and scores of ``saccade test`` with several view sets, of ``saccade predict`` and ``expand``.

The data are generated from a seed. Both recordings need the same machine and versions of PyTorch and PyAV.
Only the stable interface is used: `saccade.create_model`, `list_models`, `open_video`, `Predictor`, the
command line and the files of a run folder. Takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL_TRANSFORMER = {"width": 48, "depth": 2, "num_heads": 3, "train_crop": 32}
SMALL_MVIT = {
    "depth": 4,
    "embed_dim": 16,
    "widen_at": (1, 3),
    "pool_q_at": (1, 3),
    "kv_stride": 2,
    "train_crop": 64,
    "num_frames": 4,
}
# Prefix of model names -> (overrides, size of the clip (T, H, W)).
SMALL: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "x2d": ({}, (1, 64, 64)),
    "x3d_": ({}, (4, 64, 64)),
    "x3d_xl": ({"gamma_d": 1.0}, (4, 64, 64)),
    "vov3d_": ({}, (4, 64, 64)),
    "rubiksnet_": ({}, (4, 64, 64)),
    "timesformer_": ({**SMALL_TRANSFORMER, "num_frames": 4}, (4, 32, 32)),
    "vivit_": ({**SMALL_TRANSFORMER, "num_frames": 4}, (4, 32, 32)),
    "mvit": (SMALL_MVIT, (4, 64, 64)),
    "maskfeat_": (SMALL_MVIT, (4, 64, 64)),
}
# Variants without a registered name: (name, overrides, clip).
VARIANTS: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("x3d_xs", {"gamma_s": 48 / 112, "gamma_d": 1.0}, (4, 80, 96)),  # larger than the head's window
    ("x3d_xs", {"gamma_d": 1.0, "localization": True}, (4, 64, 64)),
    ("x3d_xs", {"gamma_d": 1.0, "drop_path": 0.3, "head_pool": "global"}, (4, 64, 64)),
    ("vov3d_m", {"localization": True, "drop_path": 0.2}, (4, 64, 64)),
    ("rubiksnet_tiny", {"quantize": True, "localization": True}, (4, 64, 64)),
    ("vivit_base", {**SMALL_TRANSFORMER, "num_frames": 4, "class_token_leak": True}, (4, 32, 32)),
    ("timesformer_base", {**SMALL_TRANSFORMER, "num_frames": 4, "init": "scaled"}, (8, 48, 32)),
]
SMALL_X3D = (
    "--model.overrides gamma_w 0.5 gamma_d 1.0 gamma_b 1.0 --clip.num-frames 8 --clip.crop 32 "
    "--clip.short-side 40 --augment.short-side 36 48"
)
COMMON = "--threads 1 --workers 0 --device cpu --log-every 1 --optim.warmup-epochs 0.2"
# Name of a run -> arguments of ``saccade train``.
RUNS = {
    "strong": f"x3d_motion --data motion {SMALL_X3D} --epochs 2 --batch-size 8 --val-every 1 --ema 0.9 "
    "--augment.rand-ops 2 --augment.erasing 0.5 --augment.mixup 0.8 --augment.cutmix 1.0 --precise-bn 2 "
    "--augment.brightness 0.3 --augment.saturation 0.3 --augment.flip 0.5 --accumulate 2",
    "repeated": f"x3d_motion --data motion {SMALL_X3D} --epochs 1 --batch-size 8 --augment.repeats 2 "
    "--augment.area 0.3 1 --temporal-rule segments --clip.short-side 32",
    "multigrid": f"x3d_motion --data motion {SMALL_X3D} --epochs 4 --batch-size 2 --multigrid both "
    "--grid.bn-base-size 2",
    "x3d-multigrid": f"x3d_motion --data motion {SMALL_X3D} --epochs 1 --batch-size 2 "
    "--multigrid x3d-multigrid",
    "shifts": "rubiksnet_tiny_aq_motion --data motion --epochs 1 --batch-size 8 --clip.crop 32 "
    "--clip.short-side 36 --augment.short-side 36 36",
    "timesformer": "timesformer_motion --data motion --epochs 1 --batch-size 8 "
    "--model.overrides width 48 depth 2 num_heads 3",
    "pretrain": "maskfeat_motion_pretrain --data motion --epochs 1",
    "finetune": "maskfeat_motion_finetune --data motion --epochs 1 --model.weights runs/pretrain "
    "--model.layer-decay 0.8 --model.freeze 1",
    "events": f"x3d_motion_loc --data untrimmed {SMALL_X3D} --epochs 1 --batch-size 4",
    "multilabel": f"x3d_motion_multilabel --data untrimmed {SMALL_X3D} --epochs 1 --batch-size 4",
}
# Name of a test -> arguments of ``saccade test``.
TESTS = {
    "views": "runs/strong --views 1x1,3x1,10x3",
    "shuffled": "runs/strong --views 2x1 --shuffle-frames",
    "pyslowfast": "runs/strong --views 5x3 --temporal-rule pyslowfast",
    "segments": "runs/repeated --views 1x1,2x3",
    "protocols": "runs/shifts --views ssv2-1clip,ssv2-2clip-3crop",
    "transformer": "runs/timesformer --views 1x1,1x3",
    "finetuned": "runs/finetune --views 5x1",
    "events": "runs/events",
    "multilabel": "runs/multilabel --views 1x1,4x3",
    "multilabel-mean": "runs/multilabel --views 4x1 --ensemble mean",
}
SEARCH = (
    "--data motion --recipe x3d_motion --start crop=32 --max-steps 1 --axes temporal,width --target-gmacs 1 "
    "--epochs 3 --seeds 1 --jobs 1 --batch-size 8 --threads 1 --workers 0 --device cpu --latency-runs 0"
)
# Values whose names contain these differ between runs: times, speeds, memory, dates, paths.
VARYING = ("second", "time", "rate", "memory", "latency", "date", "path", "file", "command", "git", "speed")
VARYING += ("version", "weights", "root", "per_s", "wait", "_mb", "_gb", "_ms", "out")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record", help="record the outputs of the tree on PYTHONPATH")
    record.add_argument("out", type=Path)
    record.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    record.add_argument("--folder", type=Path, help="folder of data and runs; existing ones are reused")
    record.add_argument("--videos", type=Path, help="also record frames of the video files in this folder")
    compare = commands.add_parser("compare", help="exit with 1 if two recordings differ")
    compare.add_argument("a", type=Path)
    compare.add_argument("b", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return compare_recordings(options.a, options.b)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if "PYTHONPATH" in os.environ:  # the commands run in another folder
        os.environ["PYTHONPATH"] = str(Path(os.environ["PYTHONPATH"]).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        videos = options.videos.resolve() if options.videos else None
        out, facts = options.out.resolve(), {}
        os.chdir(folder)
        for part in options.only:
            start = time.perf_counter()
            facts.update(PARTS[part](videos))
            out.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(f"{len(facts)} values in {out}")
    return 0


# ------------------------------------------------------------------------------------------------- recording


def digest(tensor: Any) -> str:
    """Shape, dtype, mean and SHA-256 of the bytes of a tensor or array."""
    import numpy as np
    import torch

    values = torch.as_tensor(np.asarray(tensor)) if not torch.is_tensor(tensor) else tensor.detach()
    if values.dtype == torch.bfloat16:
        values = values.float()
    array = np.ascontiguousarray(values.contiguous().cpu().numpy())
    mean = f"{float(array.astype(np.float64).mean()):.6g}" if array.size else "empty"
    return f"{array.dtype}{list(array.shape)} mean {mean} {hashlib.sha256(array.tobytes()).hexdigest()[:24]}"


def array_digest(array: Any) -> str:
    import numpy as np

    if array.dtype.kind in "OUS":
        return hashlib.sha256("\n".join(map(str, np.ravel(array))).encode()).hexdigest()[:24]
    return digest(array)


def record_models(_: Path | None) -> dict[str, str]:
    """Weights, logits and gradients of all registered models and of the variants."""
    import torch

    import saccade

    torch.set_num_threads(1)
    facts: dict[str, str] = {}
    cases = [(name, *_small(name)) for name in saccade.list_models()] + VARIANTS
    for name, overrides, size in cases:
        changes = ",".join(f"{key}={value}" for key, value in overrides.items())
        key = f"models/{name}" if (name, overrides, size) not in VARIANTS else f"models/{name}({changes})"
        torch.manual_seed(0)
        model = saccade.create_model(name, 0 if name.startswith("maskfeat_") else 7, **overrides)
        facts[f"{key}/weights"] = digest(torch.cat([p.detach().flatten() for p in model.parameters()]))
        layout = torch.channels_last_3d if getattr(model, "prefers_channels_last", False) else None
        clips = torch.randn(2, 3, *size)
        if layout is not None:
            model, clips = model.to(memory_format=layout), clips.contiguous(memory_format=layout)
        for mode in ("eval", "train"):
            torch.manual_seed(1)
            output = model.train(mode == "train")(clips)
            facts[f"{key}/{mode}"] = digest(output)
        output.float().square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        facts[f"{key}/gradients"] = digest(torch.cat([g.flatten() for g in gradients]))
    return facts


def _small(name: str) -> tuple[dict[str, Any], tuple[int, int, int]]:
    prefix = max((prefix for prefix in SMALL if name.startswith(prefix)), key=len)
    return SMALL[prefix]


def record_videos(extra: Path | None) -> dict[str, str]:
    """Frames of videos, in full size and resized."""
    import saccade

    make_data()
    files = [min(Path("motion/val").rglob("*.mp4")), min(Path("untrimmed").rglob("*.mp4"))]
    if extra is not None:
        suffixes = (".mp4", ".avi", ".mkv", ".webm")
        files += [path for path in sorted(extra.rglob("*")) if path.suffix in suffixes]
    facts = {}
    for path in files:
        for side in (None, 47):
            key = f"videos/{path.name}/{side or 'full'}"
            try:
                with saccade.open_video(path, short_side=side) as reader:
                    length = len(reader)
                    indices = sorted({0, 1, length // 3, length // 2, length - 1})
                    facts[key] = f"{length} at {reader.fps!r}: {digest(reader.frames(indices))}"
            except saccade.VideoError as error:
                facts[key] = f"{type(error).__name__}"
    return facts


def record_predictor(_: Path | None) -> dict[str, str]:
    """Input clips and outputs of a model in a Predictor."""
    import torch

    import saccade

    make_data()
    torch.set_num_threads(1)
    video = sorted(Path("motion/val").rglob("*.mp4"))[0]
    facts = {}
    for views in ("auto", "1x1", "3x3"):
        torch.manual_seed(0)
        model = saccade.create_model("x2d", 12)
        inputs: list[str] = []
        model.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(digest(args[0])))
        predict = saccade.Predictor(model, device="cpu", views=views, batch_size=4)
        prediction = predict(video)
        facts[f"predictor/{views}/clips"] = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:24]
        facts[f"predictor/{views}/scores"] = digest(prediction.scores)
        facts[f"predictor/{views}/windows"] = digest(prediction.window_scores)
    return facts


def record_runs(_: Path | None) -> dict[str, str]:
    """Training runs: metrics and final weights."""
    from safetensors.torch import load_file

    make_data()
    facts: dict[str, str] = {}
    for name, arguments in RUNS.items():
        folder = Path("runs", name)
        if not (folder / "best.safetensors").is_file():
            run_command(f"train {arguments} {COMMON} --out {folder}")
        rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
        facts |= {f"runs/{name}/metrics.{key}": value for key, value in flat(rows)}
        weights = load_file(folder / "best.safetensors")
        joined = "\n".join(f"{key} {digest(value)}" for key, value in sorted(weights.items()))
        facts[f"runs/{name}/weights"] = hashlib.sha256(joined.encode()).hexdigest()[:24]
        for scores in sorted(folder.glob("*scores*.npz")):
            facts |= scores_of(scores, f"runs/{name}")
    return facts


def record_tests(_: Path | None) -> dict[str, str]:
    """``saccade test`` and ``saccade predict``."""
    record_runs(None)
    facts: dict[str, str] = {}
    for name, arguments in TESTS.items():
        out = Path("tests", name)
        if not list(out.glob("*_result.json")):
            run_command(f"test {arguments} --out {out} --workers 0 --device cpu")
        (result,) = out.glob("*_result.json")
        facts |= {f"tests/{name}/{key}": value for key, value in flat(json.loads(result.read_text()))}
        for scores in sorted(out.glob("*.npz")):
            facts |= scores_of(scores, f"tests/{name}")
    clips = " ".join(str(path) for path in sorted(Path("motion/val").rglob("*.mp4"))[:3])
    long = min(map(str, Path("untrimmed").rglob("*.mp4")))
    for name, arguments in {
        "auto": f"{clips} --run runs/strong",
        "4x3": f"{clips} --run runs/strong --views 4x3",
        "segments": f"{clips} --run runs/shifts",
        "long": f"{long} --run runs/multilabel",
        "when": f"{long} --run runs/events --localize --out .",
    }.items():
        text = run_command(f"predict {arguments} --device cpu --json")
        facts |= {f"predict/{name}/{key}": value for key, value in flat(json.loads(text))}
    return facts


def record_search(_: Path | None) -> dict[str, str]:
    """One step of an expansion search."""
    make_data()
    text = run_command(f"expand {SEARCH} --out search --json --overwrite")
    return {f"search/{key}": value for key, value in flat(json.loads(text))}


PARTS = {
    "models": record_models,
    "videos": record_videos,
    "predictor": record_predictor,
    "runs": record_runs,
    "tests": record_tests,
    "search": record_search,
}


def make_data() -> None:
    """Generate the motion clips, trimmed and untrimmed."""
    common = "--seed 3 --size 64x80 --workers 1"
    if not Path("motion").is_dir():
        run_command(f"data motion motion --clips-per-class 3 --val-per-class 1 {common}")
    if not Path("untrimmed").is_dir():
        run_command(f"data motion untrimmed --untrimmed --videos 4 --val-videos 2 {common}")


def run_command(arguments: str) -> str:
    """Run ``saccade ARGUMENTS`` and return its output."""
    command = [sys.executable, "-m", "saccade", *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"saccade {arguments}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def scores_of(path: Path, prefix: str) -> dict[str, str]:
    import numpy as np

    facts = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name = f"{prefix}/{path.name}/{key}"
            if key == "info":  # JSON, with times
                facts |= {f"{name}.{part}": value for part, value in flat(json.loads(str(arrays[key])))}
            else:
                facts[name] = array_digest(arrays[key])
    return facts


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, value) of all JSON values, except for those that vary between runs."""
    if isinstance(value, dict):
        constant = [key for key in value if not any(word in key.lower() for word in VARYING)]
        return [pair for key in constant for pair in flat(value[key], f"{prefix}{key}.")]
    if isinstance(value, list):
        return [pair for i, entry in enumerate(value) for pair in flat(entry, f"{prefix}{i}.")]
    return [(prefix.rstrip("."), repr(value))]


# ------------------------------------------------------------------------------------------------- comparing


def compare_recordings(a: Path, b: Path) -> int:
    """Print the differences; 1 if there are any."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (a, b))
    differing = [key for key in sorted(set(old) & set(new)) if old[key] != new[key]]
    for key in differing:
        print(f"{key}\n  {old[key]}\n  {new[key]}")
    for name, keys in ((a, sorted(set(old) - set(new))), (b, sorted(set(new) - set(old)))):
        for key in keys:
            print(f"only in {name}: {key}")
    equal = len(set(old) & set(new)) - len(differing)
    missing = len(set(old) ^ set(new))
    print(f"{equal} values equal, {len(differing)} differ, {missing} only in one recording")
    return 1 if differing or missing else 0


if __name__ == "__main__":
    sys.exit(main())
