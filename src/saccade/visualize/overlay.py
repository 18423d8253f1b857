"""Heat maps over the frames of a clip, as a sheet of frames and as a video."""

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
from saccade.visualize.clips import InputClip

# Dark blue to yellow with uniformly increasing lightness, readable in greyscale.
HEAT = LinearSegmentedColormap.from_list(
    "weight", ["#0b1036", "#2b2f8c", "#7b2d9b", "#c9386f", "#f2733d", "#fcb73b", "#fdf6a3"]
)
_MIN_ALPHA, _MAX_ALPHA = 0.22, 0.66  # opacity of the colour for map values 0 and 1
_COLUMNS = 8  # frames of a sheet
_MIN_VIDEO_WIDTH = 480  # pixels


@dataclass(frozen=True, eq=False)
class MapRow:
    """A heat map of a clip.

    Attributes:
        title: label of the row.
        maps: (T', h, w), 0..1, on any grid over the clip.
        note: second line of the label.
        strides: (frames, pixels of the model's input) between cells if the first cell is centred on the first
            frame and pixel, as with strided convolutions; None: cells divide the clip evenly.
    """

    title: str
    maps: NDArray[np.float32]
    note: str = ""
    strides: tuple[int, int] | None = None


def map_sheet(
    clip: InputClip,
    rows: Sequence[MapRow],
    *,
    title: str,
    subtitle: str = "",
    bar: str,
    columns: int = _COLUMNS,
    below: MapRow | None = None,
) -> Figure:
    """A figure with the frames of a clip, and below them a row of the same frames for each heat map.

    Args:
        bar: label of the colour bar.
        columns: maximum number of frames, evenly spaced.
        below: values (T', 1, 1) over time, drawn as bars below the rows.
    """
    selected = evenly_spaced(len(clip.frames), columns)
    frames = clip.frames[selected]
    images = [frames] + [
        overlay_maps(frames, interpolate_maps(row, clip, np.array(selected))) for row in rows
    ]
    page = _Page(len(selected), len(images), has_chart=below is not None)
    with styled():
        figure = Figure(figsize=(page.width, page.height))
        page.draw_title(figure, title, subtitle)
        for row, row_images in enumerate(images):
            for column, image in enumerate(row_images):
                axes = figure.add_axes(page.cell(row, column))
                axes.imshow(image, interpolation="lanczos", aspect="auto")
                axes.set_axis_off()
                if row == 0:
                    page.draw_time(figure, column, clip.seconds[selected[column]])
            if row:
                page.draw_row_label(figure, row, rows[row - 1])
        if below is not None:
            page.draw_chart(figure, below)
        page.draw_colour_bar(figure, bar)
        return figure


def map_video(
    clip: InputClip,
    rows: Sequence[MapRow],
    out: str | os.PathLike[str],
    *,
    title: str,
    columns: int | None = None,
) -> Path:
    """Write an mp4 of the part of the video that the clip spans, with the heat maps next to the frames.

    It has all frames of the video at its frame rate; the maps are interpolated between the frames that the
    model sees. A progress line below has a tick for each of those.

    Args:
        columns: images per row, including the frame itself; default: the number that leaves the fewest empty
            cells.

    Raises:
        VideoError: the video cannot be read, or ``out`` cannot be written.
    """
    target = Path(out)
    tiles = _TileVideo(clip, rows, title, columns or _num_columns(len(rows) + 1))
    write_video(target, tiles.frames(), fps=clip.timing.fps, crf=19, options={"preset": "veryfast"})
    return target


def overlay_maps(frames: NDArray[np.uint8], maps: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Blend maps (N, H, W), 0..1, over frames uint8 (N, H, W, 3).

    The frames are desaturated, so that colours are those of the maps; the opacity grows with the map.
    """
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    values = np.clip(maps, 0, 1)
    colours = np.asarray(HEAT(values), np.float32)[..., :3] * 255
    alpha = _alpha(values)[..., None]
    base = 0.3 * frames + 0.7 * grey[..., None]
    return np.round((1 - alpha) * base + alpha * colours).astype(np.uint8)


def _alpha(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    alpha: NDArray[Any] = _MIN_ALPHA + (_MAX_ALPHA - _MIN_ALPHA) * np.sqrt(values)
    return alpha.astype(np.float32)


def _colours_on_grey() -> NDArray[np.float32]:
    """The colours of the map blended over mid-grey: (256, 3) in 0..1."""
    grey = np.full((1, 256, 1, 3), 150, np.uint8)
    colours: NDArray[Any] = overlay_maps(grey, np.linspace(0, 1, 256).reshape(1, 256, 1))[0, :, 0]
    return (colours / 255).astype(np.float32)


def interpolate_maps(row: MapRow, clip: InputClip, positions: NDArray[Any]) -> NDArray[np.float32]:
    """Resample a map to the display size at (fractional) frame positions: (len(positions), side, side).

    Linear in time, bicubic in space, constant beyond the centres of the first and last cells.
    """
    maps = torch.as_tensor(np.asarray(row.maps, np.float32))
    frames, crop = torch.as_tensor(positions, dtype=torch.float64), clip.spec.crop
    frame_stride, pixel_stride = row.strides or (None, None)
    time = _to_cells(frames, clip.spec.num_frames, len(maps), frame_stride)
    before = time.floor().long()
    after = (before + 1).clamp(max=len(maps) - 1)
    weight = (time - before).float()[:, None, None]
    planes = (1 - weight) * maps[before] + weight * maps[after]
    pixels = (torch.arange(clip.side, dtype=torch.float64) + 0.5) * crop / clip.side - 0.5
    y, x = (
        2 * _to_cells(pixels, crop, cells, pixel_stride) / (cells - 1) - 1 if cells > 1 else 0 * pixels
        for cells in maps.shape[1:]
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).float().expand(len(planes), -1, -1, -1)
    larger = F.grid_sample(planes[:, None], grid, mode="bicubic", padding_mode="border", align_corners=True)
    resampled: NDArray[np.float32] = larger[:, 0].clamp(0, 1).numpy()
    return resampled


def _to_cells(positions: Tensor, size: int, cells: int, stride: int | None) -> Tensor:
    """Positions in frames or pixels (0..size - 1) -> in cells, where 0 is the centre of the first cell."""
    in_cells = positions / stride if stride else (positions + 0.5) * cells / size - 0.5
    return in_cells.clamp(0, cells - 1)


def evenly_spaced(length: int, max_num: int) -> list[int]:
    """At most ``max_num`` indices of ``length``, evenly spaced, including both ends."""
    return np.unique(np.linspace(0, length - 1, min(length, max_num)).round().astype(int)).tolist()


class _Page:
    """The layout of a sheet, in inches."""

    left, right, top, foot = 1.62, 0.86, 0.92, 0.1
    cell_side, gap, chart_height = 1.16, 0.045, 0.72

    def __init__(self, num_columns: int, num_rows: int, *, has_chart: bool) -> None:
        self.num_columns, self.num_rows = num_columns, num_rows
        step = self.cell_side + self.gap
        self.width = self.left + num_columns * step - self.gap + self.right
        self.height = self.top + num_rows * step - self.gap + self.foot
        self.height += (self.chart_height + 2 * self.gap) if has_chart else 0

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches from the top left corner -> matplotlib's fractions from the bottom left corner."""
        return (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )

    def cell(self, row: int, column: int) -> tuple[float, float, float, float]:
        step = self.cell_side + self.gap
        return self.box(self.left + column * step, self.top + row * step, self.cell_side, self.cell_side)

    def write(self, figure: Figure, x: float, y: float, text: str, size: float, **options: Any) -> None:
        left, top, *_ = self.box(x, y, 0, 0)
        figure.text(left, top, text, fontsize=size, **{"va": "center", **options})

    def draw_title(self, figure: Figure, title: str, subtitle: str) -> None:
        num_characters = int((self.width - 0.24) * 8.2)
        self.write(figure, 0.12, 0.1, shorten(title, num_characters), 14, fontweight="bold", va="top")
        subtitle = shorten(subtitle, int(1.25 * num_characters))
        self.write(figure, 0.12, 0.37, subtitle, 11, color=GREY, va="top")

    def draw_time(self, figure: Figure, column: int, seconds: float) -> None:
        x = self.left + column * (self.cell_side + self.gap) + self.cell_side / 2
        self.write(figure, x, self.top - 0.11, f"{seconds:.2f} s", 10.5, ha="center")

    def draw_row_label(self, figure: Figure, row: int, content: MapRow) -> None:
        self._draw_label(figure, content, self.top + row * (self.cell_side + self.gap) + self.cell_side / 2)

    def _draw_label(self, figure: Figure, content: MapRow, centre: float) -> None:
        lines = _wrapped(content.title, 15)
        notes = _wrapped(content.note, 16) if content.note else []
        for number, line in enumerate([*lines, *notes]):
            y = centre + (number - (len(lines) + len(notes) - 1) / 2) * 0.185
            size, colour = (11.0, INK) if number < len(lines) else (10.5, GREY)
            self.write(figure, self.left - 0.1, y, line, size, ha="right", color=colour)

    def draw_colour_bar(self, figure: Figure, label: str) -> None:
        """The colour bar, to the right of the rows with maps."""
        top = self.top + min(1, self.num_rows - 1) * (self.cell_side + self.gap)
        height = (self.num_rows - 1) * (self.cell_side + self.gap) - self.gap
        inset = min(0.12 * height, 0.3)
        x = self.width - self.right + 0.1
        axes = figure.add_axes(self.box(x, top + inset, 0.13, height - 2 * inset))
        mappable = ScalarMappable(Normalize(0, 1), ListedColormap(_colours_on_grey()))
        bar: Any = figure.colorbar(mappable, cax=axes, ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        axes.tick_params(labelsize=9.5, pad=2)
        bar.set_label(label, fontsize=10.5, labelpad=3)

    def draw_chart(self, figure: Figure, content: MapRow) -> None:
        """A bar chart over time, below the rows."""
        y = self.top + self.num_rows * (self.cell_side + self.gap) + self.gap
        width = self.num_columns * (self.cell_side + self.gap) - self.gap
        axes = figure.add_axes(self.box(self.left, y, width, self.chart_height))
        values = content.maps[:, 0, 0]
        axes.bar(np.arange(len(values)) + 0.5, values, color="#c9386f", width=0.6)
        axes.set_xlim(0, len(values))
        axes.set_ylim(0, max(float(values.max()) * 1.12, 1e-9))
        axes.set_xticks([])
        axes.yaxis.set_ticks_position("right")
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.tick_params(labelsize=9.5, pad=2)
        self._draw_label(figure, content, y + self.chart_height / 2)


def _wrapped(text: str, width: int, max_lines: int = 3) -> list[str]:
    """``text`` in lines of about ``width`` characters, broken at spaces and underscores."""
    lines = [""]
    for word in text.replace("_", "_ ").split(" "):
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        glue = " " if lines[-1] and not lines[-1].endswith("_") else ""
        lines[-1] += glue + shorten(word, width)
    if len(lines) <= max_lines:
        return lines
    return [*lines[: max_lines - 1], shorten(" ".join(lines[max_lines - 1 :]), width)]


class _TileVideo:
    """Renders the frames of a video: a grid of images with captions, a title and a progress line."""

    def __init__(self, clip: InputClip, rows: Sequence[MapRow], title: str, columns: int) -> None:
        self.clip, self.rows, self.columns = clip, list(rows), columns
        self.side = 2 * round(max(clip.side, 256) / 2)
        if len(rows) > 3:
            self.side = 2 * round(min(self.side, 224) / 2)
        self.num_rows = ceil((len(rows) + 1) / columns)
        self.unit = round(self.side / 15)  # font size
        self.head, self.caption, self.foot = 2 * self.unit, round(1.7 * self.unit), 2 * self.unit
        self.gap = self.unit // 2
        self.width = _even(columns * (self.side + self.gap) + self.gap)
        self.height = _even(self.head + self.num_rows * (self.side + self.caption) + self.foot)
        self.background = self._draw_background(title)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        sampled, first = np.unique(self.clip.indices, return_index=True)
        positions = np.interp(np.asarray(self.clip.span), sampled, first)  # in frames of the clip
        for number, frame in enumerate(self.clip.all_frames()):
            yield self._render(frame, positions[number], number / max(1, len(positions) - 1))

    def _render(self, frame: NDArray[np.uint8], position: float, progress: float) -> NDArray[np.uint8]:
        picture = self.background.copy()
        for number, row in enumerate([None, *self.rows]):
            image = frame
            if row is not None:
                image = overlay_maps(frame[None], interpolate_maps(row, self.clip, np.array([position])))[0]
            tile = Image.fromarray(image)
            if tile.size != (self.side, self.side):
                tile = tile.resize((self.side, self.side), Image.Resampling.LANCZOS)
            picture.paste(tile, self._corner(number))
        draw = ImageDraw.Draw(picture)
        x = self.gap + progress * (self.width - 2 * self.gap)
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

    def _draw_background(self, title: str) -> Image.Image:
        """The parts that are the same in all frames."""
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        font = load_font(self.unit)
        bold = load_font(round(1.15 * self.unit), bold=True)
        draw.text((self.gap, self.gap), truncate(title, self.width - 2 * self.gap, bold), fill=INK, font=bold)
        for number, row in enumerate([None, *self.rows]):
            x, y = self._corner(number)
            text = "video" if row is None else f"{row.title}  {row.note}".strip()
            text = truncate(text, self.side, font)
            draw.text((x, y - round(1.4 * self.unit)), text, fill=INK if row else GREY, font=font)
        y = self.height - self.foot * 3 // 4
        draw.line((self.gap, y, self.width - self.gap, y), fill=LINE, width=max(1, self.unit // 5))
        span, width = self.clip.span, self.width - 2 * self.gap
        for index in self.clip.indices:
            x_tick = self.gap + width * (index - span.start) / max(1, len(span) - 1)
            draw.line((x_tick, y - self.unit // 4, x_tick, y + self.unit // 4), fill=GREY, width=1)
        return picture


def _num_columns(num: int) -> int:
    """The number of columns, not less than rows, that leaves the fewest empty cells for ``num`` images."""
    smallest = ceil(num**0.5)
    return min(range(smallest, min(smallest + 2, num) + 1), key=lambda columns: (-num % columns, -columns))


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def video_size(height: int, width: int) -> tuple[int, int]:
    """The size (height, width) of rendered frames: at least 480 wide, and even for the encoder."""
    scale = max(1.0, _MIN_VIDEO_WIDTH / width)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def truncate(text: str, pixels: int, font: ImageFont.FreeTypeFont) -> str:
    """Truncate ``text`` to a width in pixels, with an ellipsis."""
    while len(text) > 1 and font.getlength(text) > pixels:
        text = f"{text[:-2].rstrip()}…"
    return text


@cache
def load_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of the charts, which is part of matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
