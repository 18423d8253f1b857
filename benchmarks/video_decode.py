"""Reading a random 16x5 clip, compared with torchcodec (exact) and decord, one thread, same pixels.

    python -m benchmarks video_decode                         # generated files: 10 s, 340x256, 30 fps
    python -m benchmarks.video_decode --files a.mp4 b.mp4     # your files too

The readers are timed in turns, so that load from other processes affects all equally. The time includes
opening the file, seeking, decoding, colour conversion and closing, as in a training worker. Each reader's
frames are first compared with a sequential decode. The ratio is of CPU time, which load affects less than
wall time. "First open" includes building the index of packets, which happens once per file and process.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks._record import write_results
from saccade.video import open_video, write_video
from saccade.video.index import clear_index_cache

NUM_FRAMES, STRIDE = 16, 5
Read = Callable[[str, list[int]], np.ndarray]


def scene(camera: str, *, num_frames: int = 300, height: int = 256, width: int = 340) -> Iterator[np.ndarray]:
    """Textured objects moving over a textured background, with noise; the camera ``drifts`` or ``stands``."""
    rng = np.random.default_rng(0)

    def texture(shape: tuple[int, int], scales: tuple[tuple[int, float], ...]) -> np.ndarray:
        total = np.zeros((*shape, 3))
        for radius, weight in scales:
            field = rng.normal(size=(*shape, 3))
            for axis in (0, 1):
                field = sum(np.roll(field, i, axis) for i in range(-radius, radius + 1))
            total += weight * field / field.std()
        return total / total.std()

    background = (125 + 38 * texture((height + 320, width + 420), ((2, 0.35), (6, 0.7), (20, 1.0)))).clip(
        0, 255
    )
    objects = [(rng.uniform(size=6), 125 + 45 * texture((96, 96), ((1, 0.3), (5, 1.0)))) for _ in range(5)]
    for t in range(num_frames):
        now = t if camera == "drifts" else 0
        y, x = 150 + 120 * np.sin(now / 90), 190 + 150 * np.sin(now / 120)
        top, left = int(y), int(x)
        patch = background[top : top + height + 1, left : left + width + 1]
        dy, dx = y - top, x - left
        rows = patch[:-1] * (1 - dy) + patch[1:] * dy
        frame = rows[:, :-1] * (1 - dx) + rows[:, 1:] * dx
        for p, appearance in objects:
            side = int(40 + 50 * p[0])
            v = int((height - side) * (0.5 + 0.5 * np.sin(t / (25 + 40 * p[1]) + 6 * p[2])))
            h = int((width - side) * (0.5 + 0.5 * np.sin(t / (25 + 40 * p[3]) + 6 * p[4])))
            frame[v : v + side, h : h + side] = appearance[:side, :side]
        yield (frame + rng.normal(scale=0.7, size=frame.shape)).clip(0, 255).astype(np.uint8)


def read_saccade(path: str, indices: list[int]) -> np.ndarray:
    with open_video(path) as reader:
        return reader.frames(indices).numpy()


def read_saccade_cold(path: str, indices: list[int]) -> np.ndarray:
    clear_index_cache()
    return read_saccade(path, indices)


def read_torchcodec(path: str, indices: list[int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_at(indices).data.numpy()


def read_decord(path: str, indices: list[int]) -> np.ndarray:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def decode_all(path: str) -> np.ndarray:
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def readers() -> dict[str, Read]:
    available: dict[str, Read] = {"saccade": read_saccade, "saccade, first open": read_saccade_cold}
    for name, read in (("torchcodec", read_torchcodec), ("decord", read_decord)):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: skipped")
        else:
            available[name] = read
    return available


def check(path: str, readers: dict[str, Read]) -> dict[str, str]:
    """Largest difference of each reader's clips from the sequential decode; 0 is bit-exact."""
    truth = decode_all(path)
    starts = np.linspace(0, len(truth) - (NUM_FRAMES - 1) * STRIDE - 1, 5).astype(int)
    outcomes = {}
    for name, read in readers.items():
        largest = 0
        for start in starts:
            indices = [int(start) + STRIDE * i for i in range(NUM_FRAMES)]
            difference = np.abs(read(path, indices).astype(int) - truth[indices])
            largest = max(largest, int(difference.max()))
        outcomes[name] = "bit-exact" if largest == 0 else f"differs by up to {largest}"
    return outcomes


def measure(path: str, readers: dict[str, Read], repetitions: int) -> dict[str, tuple[float, float]]:
    """Mean wall and CPU milliseconds per clip."""
    with open_video(path) as reader:
        last = len(reader) - (NUM_FRAMES - 1) * STRIDE
    rng = np.random.default_rng(0)
    wall: dict[str, list[float]] = {name: [] for name in readers}
    cpu: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repetitions):
        start = int(rng.integers(last))
        indices = [start + STRIDE * i for i in range(NUM_FRAMES)]
        for name, read in readers.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            read(path, indices)
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
    return {name: (1e3 * statistics.mean(wall[name]), 1e3 * statistics.mean(cpu[name])) for name in readers}


def report(path: str, readers: dict[str, Read], repetitions: int) -> list[dict[str, object]]:
    outcomes = check(path, readers)
    timed = measure(path, readers, repetitions)
    with open_video(path) as reader:
        index = reader.index  # type: ignore[attr-defined]
    name = Path(path).name
    droppable = float(index.droppable.mean())
    counts = f"{len(index.when)} frames, {len(index.entries)} key frames"
    print(f"\n{name}: {counts}, {droppable:.0%} not referenced")
    print(f"  {'reader':22} {'wall ms':>8} {'CPU ms':>8} {'CPU/saccade':>12}   pixels")
    rows = []
    for reader_name, (wall, cpu) in timed.items():
        ratio = cpu / timed["saccade"][1]
        print(f"  {reader_name:22} {wall:8.1f} {cpu:8.1f} {ratio:10.2f} x   {outcomes[reader_name]}")
        rows.append(
            {
                "file": name,
                "reader": reader_name,
                "frames": len(index.when),
                "key_frames": len(index.entries),
                "unreferenced_share": round(droppable, 3),
                "wall_ms": round(wall, 2),
                "cpu_ms": round(cpu, 2),
                "cpu_ratio_to_saccade": round(ratio, 3),
                "pixels": outcomes[reader_name],
                "repetitions": repetitions,
            }
        )
    return rows


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks video_decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", nargs="*", default=[], help="additional video files")
    parser.add_argument("--repetitions", type=int, default=40)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    available = readers()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        generated = []
        for camera in ("drifts", "stands"):
            generated.append(str(Path(folder) / f"camera_{camera}.mp4"))
            write_video(generated[-1], scene(camera), fps=30, gop=120)
        for path in [*generated, *options.files]:
            rows += report(path, available, options.repetitions)
    print(f"\nwrote {write_results('video_decode', rows).name}")


if __name__ == "__main__":
    main(sys.argv[1:])
