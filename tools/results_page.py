"""Write docs/results.md, the page of published results, from saccade/models/published.csv.

python -m tools.results_page            # counts every network again: about two minutes
python -m tools.results_page --check    # exit code 1 if the page is not up to date
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from saccade.files import write_text
from saccade.models.published import DATA_SETS, NOTES, PublishedResult, published_results
from saccade.tasks import figure_name

PAGE = Path(__file__).parents[1] / "docs" / "results.md"

_HEAD = """# Published results

What the authors of the models and of their rivals published, each figure with its protocol and source,
and our counts of parameters and multiply-adds beside theirs. **No accuracy on this page was measured by
this project**; what was, is in [RESULTS](../RESULTS.md). The table is a file of the package,
`saccade/models/published.csv`, and this page is made from it by `python -m tools.results_page`.

* *Views*: CLIPSxCROPS or a protocol's name ([testing](testing.md)). *Rule*: which frames
  ([sampling](sampling.md)).
* *Params* in millions and *GFLOPs* of one view in billions are as their source prints them, for as many
  classes as the data set has. *Ours* is counted: multiply-adds of convolutions, linear layers and
  attention, at the crop that the source counts at (*at*), or at the test crop where it prints none.
* A dash: not stated. A number in the last column: why the counts differ, below the tables. Without one
  they agree to the digits printed.

Measure a checkpoint against this page by the protocol of its row:

    saccade reproduce x3d_m --weights x3d_m.pyth --data k400/val.csv

It prints what was measured beside what was published, with the standard error for the number of videos.
Counts at other sizes:

    saccade models "x3d_*" --frames 16 --crop 224 --num-classes 174

```python
from saccade.models import count_macs, create_model, published_results

count_macs(create_model("x3d_m", num_classes=174), (1, 3, 16, 256, 256))  # for a clip (B, 3, T, H, W)
for result in published_results("vov3d_m", data="ssv2"):
    print(result.name, result.views, result.value, result.source)
```
"""

_REVISIONS = """
## Two revisions of VoV3D's README

The repository's README first (December 2020) reported a VoV3D-M of 3.8 M parameters, here `vov3d_m_v1`;
since 20 April 2021 it reports the present one. The accuracies of X3D and VoV3D-L changed with it, by 0.0
to 0.4 points, and so did GFLOPs: those of VoV3D-L and X3D-L on Something-Something were at 224 pixels
first (9.3, 9.1) and are at 256 now (12.1, 12.0), the size of the test. On Kinetics it still prints them
at 224, beside VoV3D-M's and X3D-M's at 256. VoV3D-L with 32 frames was 20.9 first, which is neither its
count at 224 (18.61) nor at 256 (24.31; printed now). The addresses of several weights did not change
between the revisions."""


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    check = parser.parse_args(args).check
    page = render()
    if not check:
        write_text(PAGE, page)
        return 0
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
    print(f"{PAGE.name} is {'up to date' if current else 'not up to date: run python -m tools.results_page'}")
    return 0 if current else 1


def render() -> str:
    """The whole page."""
    counts: dict[tuple[str, ...], tuple[float, float]] = {}
    notes: list[str] = []
    parts = [_HEAD]
    for data, title in DATA_SETS.items():
        parts.append(f"\n## {title}\n")
        for with_model, heading in ((True, ""), (False, "Rivals that Saccade does not have:")):
            results = [r for r in published_results(data=data) if bool(r.model) == with_model]
            if results:
                parts.extend([f"{heading}\n"] if heading else [])
                parts.append(_table(results, counts, notes))
    parts.append(_REVISIONS)
    parts.append("\n## Why counts differ\n")
    parts.append("\n".join(f"{number}. {NOTES[note]}" for number, note in enumerate(notes, 1)) + "\n")
    return "\n".join(parts)


def _table(
    results: Sequence[PublishedResult], counts: dict[tuple[str, ...], tuple[float, float]], notes: list[str]
) -> str:
    ours = bool(results[0].model)
    titles = ["published as", *(["model here"] * ours), "from", "frames", "views", "rule", "top-1", "top-5"]
    titles[titles.index("top-1")] = figure_name(results[0].metric)
    titles += ["params", *(["ours"] * ours), "GFLOPs", *(["ours", "at"] * ours), "source", *([""] * ours)]
    rows = [titles, ["---"] * len(titles)]
    for result in results:
        stride = f" x {result.stride}" if result.stride > 1 else ""
        cells = [
            result.name,
            *([_call(result)] * ours),
            result.pretrain or "—",
            f"{result.frames}{stride}" if result.frames else "—",
            result.views or "—",
            result.rule or "—",
            _figure(result.value),
            _figure(result.top5),
            _figure(result.params),
        ]
        if ours:
            key = (
                _call(result),
                str(result.classes),
                str(result.frames),
                str(result.counted_at or result.crop),
            )
            if key not in counts:
                counts[key] = result.counts()
            params, gmacs = counts[key]
            if result.note and result.note not in notes:
                notes.append(result.note)
            number = str(notes.index(result.note) + 1) if result.note else ""
            cells += [f"{params:.3f}", _figure(result.gflops), f"{gmacs:.3f}"]
            cells += [str(result.counted_at or result.crop), result.source, number]
        else:
            cells += [_figure(result.gflops), result.source]
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _call(result: PublishedResult) -> str:
    options = " ".join(f"{name}={value}" for name, value in result.options.items())
    return f"`{result.model}`" + (f" {options}" if options else "")


def _figure(value: float) -> str:
    if math.isnan(value):
        return "—"
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


if __name__ == "__main__":
    sys.exit(main())
