"""From a folder of labelled clips to a tested model, without a question: what ``saccade fit`` does.

Files: `facts` (what the clips and the machine are like), `plan` (facts -> config, every choice with its
reason; pure), `clips` (the check, the list of clips of a run, the sides of an earlier run), `run` (recipe
and run).
"""

from __future__ import annotations

from saccade.fit.clips import check_clips
from saccade.fit.facts import DataFacts, Machine, this_machine
from saccade.fit.plan import PURPOSES, Choice, Plan, Request, make_plan
from saccade.fit.run import check_start, plan_run, run_folder, run_plan, write_recipe

__all__ = [
    "PURPOSES",
    "Choice",
    "DataFacts",
    "Machine",
    "Plan",
    "Request",
    "check_clips",
    "check_start",
    "make_plan",
    "plan_run",
    "run_folder",
    "run_plan",
    "this_machine",
    "write_recipe",
]
