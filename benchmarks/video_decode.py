"""Reading a random 16x5 clip: Saccade against torchcodec (exact) and decord, one thread, same pixels.

    python -m benchmarks video_decode                         # files made here: 10 s, 340x256, 30 fps
    python -m benchmarks.video_decode --files a.mp4 b.mp4     # your own besides

Readers take turns within each repetition, so that load on the machine falls on all alike. A reader's time is
from the path to the pixels: open, find, decode, convert, close, as a training worker does. Before anything is
timed, every reader's frames are compared with a sequential decode, and the table says what came of it. The
ratio is of CPU time, which a busy machine disturbs less than wall time. "First open" reads the packets
through to make the index, as happens once per file and process; after that the index is known.
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
    """Textured things moving over a textured ground, with noise; the camera ``drifts`` or ``stands``."""
    rng = np.random.default_rng(0)

    def texture(shape: tuple[int, int], scales: tuple[tuple[int, float], ...]) -> np.ndarray:
        total = np.zeros((*shape, 3))
        for radius, weight in scales:
            field = rng.normal(size=(*shape, 3))
            for axis in (0, 1):
                field = sum(np.roll(field, i, axis) for i in range(-radius, radius + 1))
            total += weight * field / field.std()
        return total / total.std()

    ground = (125 + 38 * texture((height + 320, width + 420), ((2, 0.35), (6, 0.7), (20, 1.0)))).clip(0, 255)
    things = [(rng.uniform(size=6), 125 + 45 * texture((96, 96), ((1, 0.3), (5, 1.0)))) for _ in range(5)]
    for t in range(num_frames):
        now = t if camera == "drifts" else 0
        y, x = 150 + 120 * np.sin(now / 90), 190 + 150 * np.sin(now / 120)
        top, left = int(y), int(x)
        patch = ground[top : top + height + 1, left : left + width + 1]
        dy, dx = y - top, x - left
        rows = patch[:-1] * (1 - dy) + patch[1:] * dy
        frame = rows[:, :-1] * (1 - dx) + rows[:, 1:] * dx
        for p, look in things:
            side = int(40 + 50 * p[0])
            v = int((height - side) * (0.5 + 0.5 * np.sin(t / (25 + 40 * p[1]) + 6 * p[2])))
            h = int((width - side) * (0.5 + 0.5 * np.sin(t / (25 + 40 * p[3]) + 6 * p[4])))
            frame[v : v + side, h : h + side] = look[:side, :side]
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
    found: dict[str, Read] = {"saccade": read_saccade, "saccade, first open": read_saccade_cold}
    for name, read in (("torchcodec", read_torchcodec), ("decord", read_decord)):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: left out")
        else:
            found[name] = read
    return found


def check(path: str, found: dict[str, Read]) -> dict[str, str]:
    """Each reader's greatest difference from the sequential decode, over some clips. 0 is bit-exact."""
    truth = decode_all(path)
    starts = np.linspace(0, len(truth) - (NUM_FRAMES - 1) * STRIDE - 1, 5).astype(int)
    verdict = {}
    for name, read in found.items():
        worst = 0
        for start in starts:
            indices = [int(start) + STRIDE * i for i in range(NUM_FRAMES)]
            difference = np.abs(read(path, indices).astype(int) - truth[indices])
            worst = max(worst, int(difference.max()))
        verdict[name] = "bit-exact" if worst == 0 else f"differs by up to {worst}"
    return verdict


def measure(path: str, found: dict[str, Read], repetitions: int) -> dict[str, tuple[float, float]]:
    """Mean wall and CPU milliseconds of one clip."""
    with open_video(path) as reader:
        last = len(reader) - (NUM_FRAMES - 1) * STRIDE
    rng = np.random.default_rng(0)
    wall: dict[str, list[float]] = {name: [] for name in found}
    cpu: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repetitions):
        start = int(rng.integers(last))
        indices = [start + STRIDE * i for i in range(NUM_FRAMES)]
        for name, read in found.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            read(path, indices)
            cpu[name].append(time.process_time() - cpu_start)
            wall[name].append(time.perf_counter() - wall_start)
    return {name: (1e3 * statistics.mean(wall[name]), 1e3 * statistics.mean(cpu[name])) for name in found}


def report(path: str, found: dict[str, Read], repetitions: int) -> list[dict[str, object]]:
    verdict = check(path, found)
    timed = measure(path, found, repetitions)
    with open_video(path) as reader:
        index = reader.index  # type: ignore[attr-defined]
    name = Path(path).name
    share = float(index.droppable.mean())
    print(f"\n{name}: {len(index.when)} frames, {len(index.entries)} key frames, {share:.0%} not referred to")
    print(f"  {'reader':22} {'wall ms':>8} {'CPU ms':>8} {'saccade is':>12}   pixels")
    rows = []
    for reader_name, (wall, cpu) in timed.items():
        ratio = cpu / timed["saccade"][1]
        print(f"  {reader_name:22} {wall:8.1f} {cpu:8.1f} {ratio:10.2f} x   {verdict[reader_name]}")
        rows.append(
            {
                "file": name,
                "reader": reader_name,
                "frames": len(index.when),
                "key_frames": len(index.entries),
                "unreferenced_share": round(share, 3),
                "wall_ms": round(wall, 2),
                "cpu_ms": round(cpu, 2),
                "cpu_ratio_to_saccade": round(ratio, 3),
                "pixels": verdict[reader_name],
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
    parser.add_argument("--files", nargs="*", default=[], help="video files to measure as well")
    parser.add_argument("--repetitions", type=int, default=40)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    found = readers()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for camera in ("drifts", "stands"):
            made.append(str(Path(folder) / f"camera_{camera}.mp4"))
            write_video(made[-1], scene(camera), fps=30, gop=120)
        for path in [*made, *options.files]:
            rows += report(path, found, options.repetitions)
    print(f"\nwrote {write_results('video_decode', rows).name}")


if __name__ == "__main__":
    main(sys.argv[1:])
