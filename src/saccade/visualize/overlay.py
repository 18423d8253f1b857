"""Heat maps over the frames of a clip, as a sheet and as a video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from saccade.video.write import write_video
from saccade.visualize.charts import GREY, INK, LINE, shorten, styled
from saccade.visualize.clips import SeenClip

# Dark blue to yellow, of evenly rising lightness: what is bright on screen is bright in print.
HEAT = LinearSegmentedColormap.from_list(
    "weight", ["#0b1036", "#2b2f8c", "#7b2d9b", "#c9386f", "#f2733d", "#fcb73b", "#fdf6a3"]
)
_LEAST, _MOST = 0.22, 0.66  # of the colour over the frame, where the map is 0 and 1
_COLUMNS = 8  # frames of a sheet
_VIDEO_WIDTH = 480  # pixels of a rendered video at least


@dataclass(frozen=True, eq=False)
class MapRow:
    """One kind of map of a clip.

    Attributes:
        title: what it is of; a note in a second line.
        maps: (T', h, w) on any grid over the clip, 0..1.
        steps: (frames, pixels of the model's input) from cell to cell where the first stands on the first
            frame and pixel, as with strided convolutions of odd kernels; None: cells divide the clip evenly.
    """

    title: str
    maps: NDArray[np.float32]
    note: str = ""
    steps: tuple[int, int] | None = None


def map_sheet(
    clip: SeenClip,
    rows: Sequence[MapRow],
    *,
    title: str,
    subtitle: str = "",
    bar: str,
    columns: int = _COLUMNS,
    below: MapRow | None = None,
) -> Figure:
    """The frames of a clip, and under them a row of the same frames for each kind of map.

    Args:
        bar: what the colour stands for.
        columns: frames shown at most, evenly spread.
        below: a number (T', 1, 1) for each moment of the clip, drawn as bars under the columns.
    """
    shown = spread(len(clip.frames), columns)
    pictures = [clip.frames[shown]]
    pictures += [overlaid(clip.frames[shown], spanned(row, clip, np.array(shown))) for row in rows]
    page = _Page(len(shown), len(pictures), charted=below is not None)
    with styled():
        figure = Figure(figsize=(page.width, page.height))
        page.head(figure, title, subtitle)
        for row, own in enumerate(pictures):
            for column, picture in enumerate(own):
                axes = figure.add_axes(page.cell(row, column))
                axes.imshow(picture, interpolation="lanczos", aspect="auto")
                axes.set_axis_off()
                if row == 0:
                    page.moment(figure, column, clip.seconds[shown[column]])
            if row:
                page.label(figure, row, rows[row - 1])
        if below is not None:
            page.chart(figure, below)
        page.colours(figure, bar)
        return figure


def map_video(
    clip: SeenClip,
    rows: Sequence[MapRow],
    out: str | os.PathLike[str],
    *,
    title: str,
    columns: int | None = None,
) -> Path:
    """Write an mp4 of the part of the video that the clip spans: its frames, and beside them each map over
    them.

    All frames of the video are shown, at its own rate; between two that the model saw, the maps are
    interpolated. A mark below moves along the clip, with a tick at each frame that the model saw.

    Args:
        columns: pictures beside each other, the frame itself among them; default: as few places left over
            as can be.

    Raises:
        VideoError: the video cannot be read, or ``out`` not written.
    """
    target = Path(out)
    tiles = _Tiles(clip, rows, title, columns or _columns_for(len(rows) + 1))
    write_video(target, tiles.frames(), fps=clip.timing.fps, crf=19, options={"preset": "veryfast"})
    return target


def overlaid(frames: NDArray[np.uint8], maps: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Frames uint8 (N, H, W, 3) under the colours of maps (N, H, W) in 0..1.

    Frames lose their own colour, so that every colour is the map's; where the map is 0 they show through.
    """
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    values = np.clip(maps, 0, 1)
    colours = np.asarray(HEAT(values), np.float32)[..., :3] * 255
    alpha = _alpha(values)[..., None]
    base = 0.3 * frames + 0.7 * grey[..., None]
    return np.round((1 - alpha) * base + alpha * colours).astype(np.uint8)


def _alpha(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """How much of the colour is laid over the frame."""
    alpha: NDArray[Any] = _LEAST + (_MOST - _LEAST) * np.sqrt(values)
    return alpha.astype(np.float32)


def _on_grey() -> NDArray[np.float32]:
    """The colours as they look over a frame of middle grey: (256, 3) in 0..1."""
    grey = np.full((1, 256, 1, 3), 150, np.uint8)
    colours: NDArray[Any] = overlaid(grey, np.linspace(0, 1, 256).reshape(1, 256, 1))[0, :, 0]
    return (colours / 255).astype(np.float32)


def spanned(row: MapRow, clip: SeenClip, places: NDArray[Any]) -> NDArray[np.float32]:
    """The map at some ``places`` of the clip, in frames of it: (len(places), side, side).

    Linear in time, bicubic in space; beyond the first and last cell as there.
    """
    maps = torch.as_tensor(np.asarray(row.maps, np.float32))
    length, crop = clip.spec.num_frames, clip.spec.crop
    time = _cells(torch.as_tensor(places, dtype=torch.float64), length, len(maps), row.steps and row.steps[0])
    before = time.floor().long()
    after = (before + 1).clamp(max=len(maps) - 1)
    share = (time - before).float()[:, None, None]
    planes = (1 - share) * maps[before] + share * maps[after]
    pixels = (torch.arange(clip.side, dtype=torch.float64) + 0.5) * crop / clip.side - 0.5
    ways = [_cells(pixels, crop, cells, row.steps and row.steps[1]) for cells in maps.shape[1:]]
    y, x = (
        2 * way / max(cells - 1, 1) - 1 if cells > 1 else 0 * way
        for way, cells in zip(ways, maps.shape[1:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).float().expand(len(planes), -1, -1, -1)
    larger = F.grid_sample(planes[:, None], grid, mode="bicubic", padding_mode="border", align_corners=True)
    shown: NDArray[np.float32] = larger[:, 0].clamp(0, 1).numpy()
    return shown


def _cells(places: Tensor, size: int, cells: int, step: int | None) -> Tensor:
    """Places in frames or pixels, of ``size``, in cells, 0 being the middle of the first."""
    at = places / step if step else (places + 0.5) * cells / size - 0.5
    return at.clamp(0, cells - 1)


def spread(length: int, most: int) -> list[int]:
    """At most ``most`` of ``length`` places, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int)).tolist()


class _Page:
    """The layout of a sheet, in inches."""

    left, right, top, foot = 1.62, 0.86, 0.92, 0.1
    cell_side, gap, chart_height = 1.16, 0.045, 0.72

    def __init__(self, num_columns: int, num_rows: int, *, charted: bool) -> None:
        self.num_columns, self.num_rows = num_columns, num_rows
        step = self.cell_side + self.gap
        self.width = self.left + num_columns * step - self.gap + self.right
        self.height = self.top + num_rows * step - self.gap + self.foot
        self.height += (self.chart_height + 2 * self.gap) if charted else 0

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches from the top left corner -> matplotlib's shares from the bottom left."""
        return (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )

    def cell(self, row: int, column: int) -> tuple[float, float, float, float]:
        step = self.cell_side + self.gap
        return self.box(self.left + column * step, self.top + row * step, self.cell_side, self.cell_side)

    def write(self, figure: Figure, x: float, y: float, text: str, size: float, **how: Any) -> None:
        place = self.box(x, y, 0, 0)
        figure.text(place[0], place[1], text, fontsize=size, **{"va": "center", **how})

    def head(self, figure: Figure, title: str, subtitle: str) -> None:
        room = int((self.width - 0.24) * 8.2)
        self.write(figure, 0.12, 0.1, shorten(title, room), 14, fontweight="bold", va="top")
        self.write(figure, 0.12, 0.37, shorten(subtitle, int(1.25 * room)), 11, color=GREY, va="top")

    def moment(self, figure: Figure, column: int, seconds: float) -> None:
        x = self.left + column * (self.cell_side + self.gap) + self.cell_side / 2
        self.write(figure, x, self.top - 0.11, f"{seconds:.2f} s", 10.5, ha="center")

    def label(self, figure: Figure, row: int, content: MapRow) -> None:
        self._label(figure, content, self.top + row * (self.cell_side + self.gap) + self.cell_side / 2)

    def _label(self, figure: Figure, content: MapRow, middle: float) -> None:
        lines = _wrapped(content.title, 15)
        notes = _wrapped(content.note, 16) if content.note else []
        for number, line in enumerate([*lines, *notes]):
            y = middle + (number - (len(lines) + len(notes) - 1) / 2) * 0.185
            bright = number < len(lines)
            size, colour = (11.0, INK) if bright else (10.5, GREY)
            self.write(figure, self.left - 0.1, y, line, size, ha="right", color=colour)

    def colours(self, figure: Figure, label: str) -> None:
        """The bar of colours, right of the rows that have them."""
        top = self.top + min(1, self.num_rows - 1) * (self.cell_side + self.gap)
        tall = (self.num_rows - 1) * (self.cell_side + self.gap) - self.gap
        inset = min(0.12 * tall, 0.3)
        x = self.width - self.right + 0.1
        axes = figure.add_axes(self.box(x, top + inset, 0.13, tall - 2 * inset))
        mappable = ScalarMappable(Normalize(0, 1), ListedColormap(_on_grey()))
        bar: Any = figure.colorbar(mappable, cax=axes, ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        axes.tick_params(labelsize=9.5, pad=2)
        bar.set_label(label, fontsize=10.5, labelpad=3)

    def chart(self, figure: Figure, content: MapRow) -> None:
        """A bar for each moment, under the rows."""
        y = self.top + self.num_rows * (self.cell_side + self.gap) + self.gap
        wide = self.num_columns * (self.cell_side + self.gap) - self.gap
        axes = figure.add_axes(self.box(self.left, y, wide, self.chart_height))
        values = content.maps[:, 0, 0]
        axes.bar(np.arange(len(values)) + 0.5, values, color="#c9386f", width=0.6)
        axes.set_xlim(0, len(values))
        axes.set_ylim(0, max(float(values.max()) * 1.12, 1e-9))
        axes.set_xticks([])
        axes.yaxis.set_ticks_position("right")
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.tick_params(labelsize=9.5, pad=2)
        self._label(figure, content, y + self.chart_height / 2)


def _wrapped(text: str, width: int, most: int = 3) -> list[str]:
    """``text`` in lines of about ``width`` letters; names of classes break at _ and spaces, too."""
    lines = [""]
    for word in text.replace("_", "_ ").split(" "):
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        glue = " " if lines[-1] and not lines[-1].endswith("_") else ""
        lines[-1] += glue + shorten(word, width)
    return lines if len(lines) <= most else [*lines[: most - 1], shorten(" ".join(lines[most - 1 :]), width)]


class _Tiles:
    """The pictures of a video: tiles with captions, a title above and the time below."""

    def __init__(self, clip: SeenClip, rows: Sequence[MapRow], title: str, columns: int) -> None:
        self.clip, self.rows, self.columns = clip, list(rows), columns
        self.side = 2 * round(max(clip.side, 256) / 2)
        if len(rows) > 3:
            self.side = 2 * round(min(self.side, 224) / 2)
        self.num_rows = ceil((len(rows) + 1) / columns)
        self.unit = round(self.side / 15)  # of letters
        self.head, self.caption, self.foot = 2 * self.unit, round(1.7 * self.unit), 2 * self.unit
        self.gap = self.unit // 2
        self.width = _even(columns * (self.side + self.gap) + self.gap)
        self.height = _even(self.head + self.num_rows * (self.side + self.caption) + self.foot)
        self.empty = self._drawn(title)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        places = self._places()
        for number, frame in enumerate(self.clip.all_frames()):
            yield self._at(frame, places[number], number / max(1, len(places) - 1))

    def _places(self) -> NDArray[np.float64]:
        """Where among the frames of the clip each frame of the span lies."""
        seen, first = np.unique(self.clip.indices, return_index=True)
        return np.interp(np.asarray(self.clip.span), seen, first)

    def _at(self, frame: NDArray[np.uint8], place: float, done: float) -> NDArray[np.uint8]:
        picture = self.empty.copy()
        for number, row in enumerate([None, *self.rows]):
            shown = frame
            if row is not None:
                shown = overlaid(frame[None], spanned(row, self.clip, np.array([place])))[0]
            tile = Image.fromarray(shown)
            if tile.size != (self.side, self.side):
                tile = tile.resize((self.side, self.side), Image.Resampling.LANCZOS)
            picture.paste(tile, self._corner(number))
        draw = ImageDraw.Draw(picture)
        x = self.gap + done * (self.width - 2 * self.gap)
        y = self.height - self.foot * 3 // 4
        radius = self.unit // 3
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=INK)
        return np.asarray(picture)

    def _corner(self, number: int) -> tuple[int, int]:
        row, column = divmod(number, self.columns)
        return (
            self.gap + column * (self.side + self.gap),
            self.head + row * (self.side + self.caption) + self.caption,
        )

    def _drawn(self, title: str) -> Image.Image:
        """Everything that does not move."""
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        font = font_of(self.unit)
        bold = font_of(round(1.15 * self.unit), bold=True)
        draw.text((self.gap, self.gap), fitting(title, self.width - 2 * self.gap, bold), fill=INK, font=bold)
        for number, row in enumerate([None, *self.rows]):
            x, y = self._corner(number)
            text = "video" if row is None else f"{row.title}  {row.note}".strip()
            text = fitting(text, self.side, font)
            draw.text((x, y - round(1.4 * self.unit)), text, fill=INK if row else GREY, font=font)
        y = self.height - self.foot * 3 // 4
        draw.line((self.gap, y, self.width - self.gap, y), fill=LINE, width=max(1, self.unit // 5))
        span, wide = self.clip.span, self.width - 2 * self.gap
        for index in self.clip.indices:
            x_tick = self.gap + wide * (index - span.start) / max(1, len(span) - 1)
            draw.line((x_tick, y - self.unit // 4, x_tick, y + self.unit // 4), fill=GREY, width=1)
        return picture


def _columns_for(num: int) -> int:
    """Columns for ``num`` tiles, more than rows, that leave the fewest empty."""
    least = ceil(num**0.5)
    return min(range(least, min(least + 2, num) + 1), key=lambda columns: (-num % columns, -columns))


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def video_size(height: int, width: int) -> tuple[int, int]:
    """The size (height, width) at which frames are rendered: at least 480 wide, and even for the encoder."""
    scale = max(1.0, _VIDEO_WIDTH / width)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def fitting(text: str, pixels: int, font: ImageFont.FreeTypeFont) -> str:
    """``text``, cut with an ellipsis where it is wider."""
    while len(text) > 1 and font.getlength(text) > pixels:
        text = f"{text[:-2].rstrip()}…"
    return text


@cache
def font_of(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of our charts, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
