"""Visualizations of models and data, and the report of a run."""

from __future__ import annotations

from saccade.visualize.report import write_report

__all__ = ["write_report"]
