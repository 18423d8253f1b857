"""``saccade visualize WHAT``: pictures of what a model has learned and sees. Each is a sub-command."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli._args import Parser, check_score
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._outputs import PICTURES, check_file
from saccade.cli._visualize_attention import add_attention
from saccade.cli._visualize_clips import add_gradcam
from saccade.cli._visualize_embedding import add_embedding
from saccade.cli._visualize_hog import add_hog
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.models import VideoModel
    from saccade.visualize.shifts import LayerShifts


def run(args: list[str]) -> int:
    """Draw one picture; exit code 0."""
    options = _parser().parse_args(args)
    code: int = options.draw(options)
    return code


def _parser() -> Parser:
    parser = Parser(prog="saccade visualize", description="Pictures of what a model has learned and sees.")
    pictures = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    shifts = pictures.add_parser(
        "shifts",
        help="where the learned shifts of a RubiksNet point, per layer, in time and space",
        description="Draw where the learned shifts of every layer point in time and space; print a table.",
    )
    shifts.set_defaults(draw=_shifts)
    shifts.add_argument("source", help="run folder, .safetensors, or a checkpoint of RubiksNet's authors")
    shifts.add_argument(
        "--model", default="", help="model such a checkpoint is of (default: whose shapes fit)"
    )
    shifts.add_argument(
        "--out", default="", help=f"picture to write, {', '.join(PICTURES)} (default: shifts.png in the run)"
    )
    shifts.add_argument("--json", action="store_true", help="print every channel's shift as JSON")
    timeline = pictures.add_parser(
        "timeline",
        help="a video with the actions that a model finds running below it, as mp4",
        description="Render a video with the timeline of the actions that a model finds in it.",
    )
    timeline.set_defaults(draw=_timeline)
    timeline.add_argument("video", metavar="VIDEO", help="file, or folder of frames")
    timeline.add_argument("--run", metavar="RUN", help="run folder of a model trained with task localization")
    timeline.add_argument("--weights", metavar="FILE", help="weights file, or a checkpoint (with --model)")
    timeline.add_argument("--out", metavar="FILE", help="mp4 to write (default: NAME.timeline.mp4 here)")
    timeline.add_argument(
        "--threshold", type=float, default=0.5, help="score from which an action is there (default 0.5)"
    )
    timeline.add_argument("--fps", type=float, help="frames per second of a folder of images (default 30)")
    add_model_flags(timeline)
    add_gradcam(pictures)
    add_attention(pictures)
    add_hog(pictures)
    add_embedding(pictures)
    return parser


def _timeline(options: Namespace) -> int:
    if not (options.run or options.weights):
        raise UsageError("which model? --run RUN, or --weights FILE (with --model NAME if not ours)")
    check_score("--threshold", options.threshold)
    out = check_file(
        options.out or f"{Path(options.video).stem}.timeline.mp4", what="video", suffixes=(".mp4",)
    )
    from saccade.inference import Localizer
    from saccade.visualize.timeline import render_timeline

    locate = Localizer(load_from_flags(options.run, options.weights, options), frames_fps=options.fps)
    timeline = locate(options.video)
    print(render_timeline(timeline, out, threshold=options.threshold))
    return 0


def _shifts(options: Namespace) -> int:
    out = check_file(
        options.out or _default_out(Path(options.source), "shifts"), what="picture", suffixes=PICTURES
    )
    model = _load(options.source, options.model)
    from saccade.visualize.charts import save_figure
    from saccade.visualize.shifts import learned_shifts, shift_chart

    layers = learned_shifts(model)
    save_figure(shift_chart(layers, title=f"Learned shifts of {model.model_name}"), out)
    if options.json:
        print(json.dumps([layer.to_dict() for layer in layers]))
        return 0
    _print_shifts(layers)
    print(f"\n{out}")
    return 0


def _print_shifts(layers: list[LayerShifts]) -> None:
    width = max(len(layer.name) for layer in layers)
    print(f"{'layer':<{width}}  channels  earlier  later  frames: mean  most  pixels: mean  most")
    for layer in layers:
        row = layer.summary()
        print(
            f"{row['layer']:<{width}}  {row['channels']:8d}  {row['earlier']:7.0%}  {row['later']:5.0%}"
            f"  {row['mean_frames']:12.2f}  {row['most_frames']:4.2f}"
            f"  {row['mean_pixels']:12.2f}  {row['most_pixels']:4.2f}"
        )
    print("\nearlier, later: channels that read another frame by at least half a frame")


def _load(source: str, name: str) -> VideoModel:
    """The model in a run folder or weights file, whichever code base wrote it."""
    from saccade.models import create_model, load_model, load_weights
    from saccade.models.checkpoints import num_classes_of, read_state
    from saccade.runs import Run

    path = Path(source)
    file = Run(path).best if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give a run folder or weights")
    if file.suffix == ".safetensors":
        return load_model(file)[0]
    from saccade.cli.convert import guess

    state = read_state(file)
    name = name or guess(str(file), state)
    model = create_model(name, num_classes_of(state, name))
    load_weights(model, file)
    return model.eval()


def _default_out(source: Path, what: str) -> Path:
    return source / f"{what}.png" if source.is_dir() else Path(f"{source.name.split('.')[0]}_{what}.png")
