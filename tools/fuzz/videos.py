"""Damaged videos: every frame that Saccade gives is the one FFmpeg gives, or there is a `VideoError`.

The truth is FFmpeg's own decoding of the same damaged file from its first packet to its last. A frame of the
reader is compared with the frame that FFmpeg makes of the same packet, and the order of the two lists must be
the same. After some damage FFmpeg's decoder gives nothing more until the end; frames that the reader gives
there must be those that FFmpeg gives when it begins at a key frame before them.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from tools.fuzz import children
from tools.fuzz.mutations import mutate, splice
from tools.fuzz.seeds import Seed, load_seeds

from saccade.errors import VideoError
from saccade.video import VideoReader, open_video
from saccade.video.colour import RgbConverter
from saccade.video.container import demux
from saccade.video.pyav import PyAVReader

MAX_FRAMES = 400  # read of a file, from its first on
FRAME_BYTES = 200 << 20  # of all frames of a file together

_GOOD = {
    "equal": "every frame, read in several orders, as FFmpeg gives it",
    "equal, some refused": "the same for those that are read; a `VideoError` for the others",
    "equal after a seek": "FFmpeg gives some only when it begins at a key frame, and then gives them so",
    "all frames refused": "a `VideoError` for every frame",
    "refused": "a `VideoError` at opening, though FFmpeg gives at least one frame",
    "refused, FFmpeg too": "a `VideoError` at opening, and FFmpeg gives no frame",
    "too large": "frames so large that they are not compared",
    "FFmpeg differs from itself": "FFmpeg gives other pixels when its pictures stay in memory: it shows what"
    " earlier pictures left there",
}


class Cases:
    """The damaged videos of a run; a case's number says which seed is damaged, and how."""

    good = _GOOD

    def __init__(self, folder: Path, real_data: Path | None) -> None:
        self.folder = folder
        (folder / "scratch").mkdir(parents=True, exist_ok=True)
        seeds = load_seeds(folder / "seeds", real_data)
        self.made = [seed for seed in seeds if not seed.name.startswith("real_")]
        self.real = [seed for seed in seeds if seed.name.startswith("real_")]

    def damaged(self, case: int) -> tuple[Seed, bytes, list[str]]:
        """The seed of a case, its bytes after the damage, and what was done to them."""
        rng = random.Random(case)
        of_real, number = rng.random() < 0.15, rng.random()
        if of_real and self.real:
            (seed,) = rng.choices(self.real, [seed.weight for seed in self.real])
        else:
            seed = self.made[int(number * len(self.made))]
        data, steps = seed.data, []
        if rng.random() < 0.1:
            others = [other for other in self.made if other.suffix == seed.suffix]
            other = rng.choice(others) if others else seed
            data, step = splice(data, other.data, seed.suffix, rng)
            steps.append(f"with {other.name}: {step}")
        if not steps or rng.random() < 0.3:
            data, more = mutate(data, seed.suffix, rng)
            steps += more
        return seed, data, steps

    def file_name(self, case: int, seed: Seed) -> str:
        return f"{case}_{Path(seed.name).stem}{seed.suffix}"

    def run(self, case: int) -> dict[str, Any]:
        """Read the damaged file of a case with Saccade and with FFmpeg; runs in a child."""
        seed, data, steps = self.damaged(case)
        path = self.folder / "scratch" / self.file_name(case, seed)
        path.write_bytes(data)
        try:
            result = compare(path, random.Random(case + 1))
        finally:
            path.unlink()
        return {"seed": seed.name, "steps": steps, **result}

    def describe(self, case: int) -> dict[str, Any]:
        """The seed of a case and what is done to it."""
        seed, _, steps = self.damaged(case)
        return {"seed": seed.name, "steps": steps}

    def keep(self, case: int) -> None:
        """Write the damaged file of a failing case where it stays."""
        seed, data, _ = self.damaged(case)
        path = self.folder / "failures" / self.file_name(case, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def compare(path: Path, rng: random.Random) -> dict[str, Any]:
    """Read ``path`` in several orders, then compare every frame with FFmpeg's sequential decoding."""
    threads = 2 if rng.random() < 0.1 else 1
    children.stage("open")
    try:
        reader = open_video(path, threads=threads)
    except VideoError as error:
        children.stage("FFmpeg", 60)
        given = _count(path)
        outcome = "refused" if given else "refused, FFmpeg too"
        return {"outcome": outcome, "detail": str(error.cause), "given": given}
    assert isinstance(reader, PyAVReader)
    with reader:
        wrong = _wrong_header(reader)
        if wrong:
            return {"outcome": "wrong header", "detail": wrong}
        height, width = reader.size
        limit = min(MAX_FRAMES, FRAME_BYTES // (3 * height * width))
        if limit < 2:
            return {"outcome": "too large", "detail": f"frames of {height} x {width}"}
        truth = _Truth(path, reader, limit)
        given = _read(reader, limit, rng)
    children.stage("open again")
    with open_video(path, threads=threads) as again:
        _read_at_random(again, limit, rng, given)
    children.stage("FFmpeg", 60)
    return truth.judge(given)


def _wrong_header(reader: PyAVReader) -> str:
    times = reader.times
    if len(reader) < 1 or len(times) != len(reader):
        return f"{len(reader)} frames with {len(times)} times"
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        return f"times {times[:20]}"
    if not (math.isfinite(reader.fps) and reader.fps > 0):
        return f"fps {reader.fps}"
    return "" if min(reader.size) > 0 else f"size {reader.size}"


@dataclass
class _Given:
    """What the reader gave: the different pixels of each frame, and why it refused others."""

    frames: dict[int, list[np.ndarray]] = field(default_factory=dict)
    causes: dict[int, str] = field(default_factory=dict)

    def add(self, index: int, pixels: np.ndarray) -> None:
        known = self.frames.setdefault(index, [])
        if not any(np.array_equal(pixels, other) for other in known):
            known.append(pixels)


def _read(reader: PyAVReader, limit: int, rng: random.Random) -> _Given:
    """All frames at once, or one by one where some cannot be decoded."""
    wanted, given = list(range(min(limit, len(reader)))), _Given()
    children.stage("frames in order")
    try:
        for i, pixels in zip(wanted, reader.frames(wanted).numpy(), strict=True):
            given.add(i, pixels)
        return given
    except VideoError as error:
        given.causes[-1] = str(error.cause)
    for i in wanted if len(wanted) <= 40 else sorted(rng.sample(wanted, 40)):
        children.stage(f"frame {i}")
        try:
            given.add(i, reader.frames([i]).numpy()[0])
        except VideoError as error:
            given.causes[i] = str(error.cause)
    return given


def _read_at_random(reader: VideoReader, limit: int, rng: random.Random, given: _Given) -> None:
    """Read random frames, also backwards and twice."""
    count = min(limit, len(reader))
    for _ in range(4):
        indices = [rng.randrange(count) for _ in range(rng.choice((1, 2, 5, 12)))]
        if rng.random() < 0.4:
            indices.sort(reverse=rng.random() < 0.5)
        children.stage(f"frames {indices}")
        try:
            frames = reader.frames(indices).numpy()
        except VideoError as error:
            given.causes.setdefault(-2, str(error.cause))
            continue
        for i, pixels in zip(indices, frames, strict=True):
            given.add(i, pixels)


class _Decoded(NamedTuple):
    """A frame as FFmpeg gives it: the packet it came from, its time in seconds or NaN, and its pixels."""

    packet: int
    seconds: float
    pixels: np.ndarray


class _Truth:
    """FFmpeg's own decoding of the file that a reader has open."""

    def __init__(self, path: Path, reader: PyAVReader, limit: int) -> None:
        self._path, self._limit, self._length = path, limit, len(reader)
        self._index, self._stream, self._turn = reader.index, reader.index.stream, reader.index.turn
        self._size = reader.size[::-1] if self._turn.transposed else reader.size

    def judge(self, given: _Given) -> dict[str, Any]:
        """The outcome of a case, with what tells it from others."""
        decoded = list(self._frames())
        found = {
            "length": self._length,
            "FFmpeg gives": len(decoded),
            "refused": sum(i >= 0 for i in given.causes),
            "method": self._index.method,
            "detail": next(iter(given.causes.values()), ""),
        }
        return {**found, **self._compared(given, decoded)}

    def _compared(self, given: _Given, decoded: list[_Decoded]) -> dict[str, Any]:
        complete = len(decoded) <= self._limit
        if complete and len(decoded) > self._length:
            return {"outcome": "frames missing"}
        if not given.frames:
            return {"outcome": "all frames refused"}
        if self._index.method == "counted":
            known = {i: [frame] for i, frame in enumerate(decoded)}
        else:
            of_packet: dict[int, list[_Decoded]] = {}
            for frame in decoded:
                of_packet.setdefault(frame.packet, []).append(frame)
            known = {i: of_packet.get(int(p), []) for i, p in enumerate(self._index.packet_of)}
        different, beyond = [], []
        for i, versions in given.frames.items():
            if not known.get(i):
                beyond.append(i)
            elif not all(any(np.array_equal(v, frame.pixels) for frame in known[i]) for v in versions):
                different.append(i)
        if different:
            return self._different(different, given, decoded)
        if beyond:
            wrong = [i for i in beyond if not self._given_after_seek(i, given.frames[i])]
            if wrong and complete:
                return {"outcome": "frames FFmpeg does not give", "detail": f"frames {wrong[:12]}"}
        if complete and not given.causes and len(decoded) < self._length and not beyond:
            return {"outcome": "frames invented"}
        order = [known[i][0].packet for i in sorted(given.frames) if known.get(i)]
        counted = self._index.method == "counted"  # then a packet may give several
        if not counted and order != [frame.packet for frame in decoded if frame.packet in set(order)]:
            return {"outcome": "other order", "detail": f"packets {order[:40]}"}
        if beyond:
            return {"outcome": "equal after a seek"}
        return {"outcome": "equal, some refused" if given.causes else "equal"}

    def _different(self, different: list[int], given: _Given, decoded: list[_Decoded]) -> dict[str, Any]:
        for first, second in zip(decoded, self._frames(hold=True), strict=False):
            if not np.array_equal(first.pixels, second.pixels):
                return {"outcome": "FFmpeg differs from itself"}
        versions = {i: len(given.frames[i]) for i in different[:8]}
        return {"outcome": "wrong frame", "detail": f"frames {different[:12]}; how many versions: {versions}"}

    def _given_after_seek(self, i: int, versions: list[np.ndarray]) -> bool:
        """Whether FFmpeg gives the frame when it begins at one of the key frames before it."""
        if self._index.method == "counted":
            return False
        packet = int(self._index.packet_of[i])
        entries = [int(entry) for entry in self._index.entries if entry <= packet]
        for entry in entries[:-4:-1]:
            pictures = [f.pixels for f in self._frames(entry, packet) if f.packet == packet]
            versions = [v for v in versions if not any(np.array_equal(v, picture) for picture in pictures)]
        return not versions

    def _frames(self, entry: int = 0, last: int | None = None, hold: bool = False) -> Iterator[_Decoded]:
        """FFmpeg's frames. ``hold`` keeps its pictures in memory: where a reference is missing it shows what
        an earlier picture left behind there.
        """
        convert, held = RgbConverter(*self._size), []
        for count, frame in enumerate(_decode(self._path, self._stream, entry, last)):
            if count > self._limit + 40:
                return
            rgb = convert(frame)
            if hold:
                held.append(frame)
            seconds = math.nan
            if frame.pts is not None and frame.time_base is not None:
                seconds = float(frame.pts * frame.time_base)
            number = frame.opaque if isinstance(frame.opaque, int) else -1
            yield _Decoded(number, seconds, self._turn(rgb).copy())


def _decode(
    path: Path, stream_index: int | None, entry: int = 0, last: int | None = None
) -> Iterator[av.VideoFrame]:
    """Every frame FFmpeg gives for the file, damaged packets skipped as the ffmpeg command does.

    Packets before ``entry`` are left out; ``last`` is the packet whose frame is still wanted.
    """
    with av.open(os.fspath(path), metadata_errors="replace") as container:
        stream = container.streams.best("video") if stream_index is None else container.streams[stream_index]
        decoder = getattr(stream, "codec_context", None)
        if stream is None or decoder is None:
            return
        decoder.thread_count = 1
        decoder.copy_opaque = True
        packets, number = demux(container, stream), 0
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            if packet is not None and packet.size:
                packet.opaque = number
                number += 1
                if number <= entry:
                    continue
            ended = packet is None or not packet.size or (last is not None and number > last + 64)
            try:
                yield from decoder.decode(None if ended else packet)
            except av.EOFError:
                return
            except av.FFmpegError:
                pass
            if ended:
                return


def _count(path: Path) -> int:
    """How many frames FFmpeg gives, up to 400."""
    count = 0
    try:
        for count, _ in enumerate(_decode(path, None), 1):
            if count >= MAX_FRAMES:
                break
    except (av.FFmpegError, ValueError, MemoryError):
        pass
    return count
