"""``saccade visualize attention``: what the heads of a transformer look at, over the frames of clips."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._visualize_clips import add_clip_flags, check_clip_flags, for_each_clip, write_pictures
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.inference import LoadedModel
    from saccade.visualize.attention import AttentionMaps
    from saccade.visualize.clips import SeenClip
    from saccade.visualize.overlay import MapRow


def add_attention(pictures: Any) -> None:
    """The parser of ``saccade visualize attention``."""
    parser: Parser = pictures.add_parser(
        "attention",
        help="what the heads of a transformer look at in a clip",
        description="What TimeSformer, ViViT or MViT looks at: rollout over all blocks, and the heads of one "
        "block, over the frames, as a sheet (NAME.attention.png) and as a video (NAME.attention.mp4); and "
        "where it has attention in time, which moment looks at which (NAME.attention-time.png).",
    )
    parser.set_defaults(draw=draw_attention)
    add_clip_flags(parser)
    parser.add_argument(
        "--heads",
        default="all",
        metavar="HEADS",
        help="all, none, mean, or numbers such as 0,3,5 (default %(default)s)",
    )
    parser.add_argument(
        "--block", type=int, default=-1, metavar="N", help="whose heads (default: the last, -1)"
    )
    add_model_flags(parser)


def draw_attention(options: Namespace) -> int:
    """The command; returns 1 when a video could not be read."""
    check_clip_flags(options)
    from saccade.visualize.attention import attention_maps
    from saccade.visualize.attention_chart import time_chart
    from saccade.visualize.charts import save_figure
    from saccade.visualize.clips import on_device

    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model

    def draw(clip: SeenClip, stem: Path) -> Iterator[Path]:
        found = attention_maps(model, on_device(clip, model), block=options.block)
        title, subtitle = f"Attention: {clip.name}", _subtitle(loaded, found, options.heads)
        yield from write_pictures(
            options,
            clip,
            _rows(found, options.heads),
            stem,
            title=title,
            subtitle=subtitle,
            bar="least to most",
            below=_below(found),
        )
        if found.in_time is not None:
            path = Path(f"{stem}-time.{options.format}")
            seconds = clip.seconds.reshape(found.in_time.shape[1], -1).mean(1)
            save_figure(time_chart(found.in_time, seconds, title=title, subtitle=subtitle), path)
            yield path

    return for_each_clip(options, loaded, "attention", draw)


def _subtitle(loaded: LoadedModel, found: AttentionMaps, heads: str) -> str:
    from saccade.inference.loading import task_of

    said = ""
    if len(found.logits):
        logits = found.logits.mean(-1) if found.logits.ndim == 2 else found.logits
        scores = task_of(loaded).activation(logits)
        best = int(scores.argmax())
        said = f" says {loaded.class_names[best]} {100 * scores[best]:.0f} %"
    rows = "rollout of" if heads == "none" else f"heads of block {found.block + 1} of"
    return f"{loaded.name}{said}; {rows} {found.num_blocks}{' blocks' if heads == 'none' else ''}"


def _rows(found: AttentionMaps, wanted: str) -> list[MapRow]:
    from saccade.visualize.attention_chart import look

    rows = [look("rollout", found.rollout, found.steps)]
    heads = found.heads
    if wanted == "none":
        return rows
    rows.append(look("mean of heads", heads.mean(0), found.key_steps))
    if wanted == "mean":
        return rows
    numbers = range(len(heads)) if wanted == "all" else _numbers(wanted, len(heads))
    return rows + [look(f"head {number}", heads[number], found.key_steps) for number in numbers]


def _numbers(text: str, num_heads: int) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) < num_heads for part in parts):
        raise UsageError(f"--heads {text}: all, none, mean, or numbers from 0 to {num_heads - 1}, as 0,3,5")
    return [int(part) for part in parts]


def _below(found: AttentionMaps) -> MapRow:
    from saccade.visualize.overlay import MapRow

    shares = found.rollout.sum((1, 2))
    return MapRow("rollout in time", np.asarray(shares / shares.sum())[:, None, None])
