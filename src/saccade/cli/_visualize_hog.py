"""``saccade visualize hog``: what MaskFeat predicts of what it was not shown."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._visualize_clips import add_clip_flags, check_clip_flags, for_each_clip
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.training.config import MaskedConfig
    from saccade.visualize.clips import SeenClip


def add_hog(pictures: Any) -> None:
    """The parser of ``saccade visualize hog``."""
    parser: Parser = pictures.add_parser(
        "hog",
        help="what MaskFeat predicts of the parts of a clip that it was not shown",
        description="Masked input, predicted HOG, target HOG and original of frames of a clip, as a sheet "
        "(NAME.hog.png) and as a video (NAME.hog.mp4). The clip is masked as the run's clips were.",
    )
    parser.set_defaults(draw=draw_hog_command)
    add_clip_flags(parser, columns=False)
    parser.add_argument(
        "--rows", type=int, default=4, metavar="N", help="frames on the sheet (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the mask (default %(default)s)")
    parser.add_argument("--ratio", type=float, help="share to hide (default: as trained)")
    add_model_flags(parser)


def draw_hog_command(options: Namespace) -> int:
    """The command; returns 1 when a video could not be read."""
    from dataclasses import replace

    from saccade.models import MaskFeat
    from saccade.tasks.masked import masking
    from saccade.visualize.charts import save_figure
    from saccade.visualize.hog import hog_sheet, hog_video, predict_masked

    check_clip_flags(options)
    if options.rows < 1:
        raise UsageError(f"--rows must be at least 1, got {options.rows}")
    if options.ratio is not None and not 0 < options.ratio < 1:
        raise UsageError(f"--ratio must lie between 0 and 1, got {options.ratio:g}")
    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model
    if not isinstance(model, MaskFeat):
        raise UsageError(
            f"{loaded.name} does not predict what is hidden; those that do: saccade models 'maskfeat_*'"
        )
    config = _masked_config(Path(options.source), model.target_kind)
    if options.ratio is not None:
        config = replace(config, ratio=options.ratio)
    generator = masking(config, model, loaded.clip.num_frames, loaded.clip.crop).generator

    def draw(clip: SeenClip, stem: Path) -> Iterator[Path]:
        found = predict_masked(model, clip, generator.of_clip(options.seed))
        title = f"Masked prediction: {clip.name}"
        share = f"{100 * found.hidden.mean():.0f} % hidden"
        subtitle = (
            f"{loaded.name}, {share}; explains {100 * found.explained:.0f} % of the hidden {found.what}"
        )
        sheet = Path(f"{stem}.{options.format}")
        save_figure(hog_sheet(found, title=title, subtitle=subtitle, rows=options.rows), sheet)
        yield sheet
        if not options.no_video:
            yield hog_video(found, f"{stem}.mp4", title=f"{clip.name}   {subtitle}")

    return for_each_clip(options, loaded, "hog", draw)


def _masked_config(source: Path, kind: str) -> MaskedConfig:
    """How the run masked its clips; of weights alone, as the code that its targets are of."""
    from saccade.cli.test import settings_of_run
    from saccade.training.config import MaskedConfig

    own = settings_of_run(source).get("masked")
    if isinstance(own, dict):
        known = {field.name for field in fields(MaskedConfig)}
        return MaskedConfig(**{name: value for name, value in own.items() if name in known})
    return MaskedConfig(rule="pyslowfast", scored="all") if kind == "hard" else MaskedConfig()
