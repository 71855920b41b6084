"""Metrics from a file of annotations and a file of results; no model needed."""

from amodal.evaluation.api import evaluate, matches, prepare
from amodal.evaluation.levels import Curve, Level, levels, pr_curves
from amodal.evaluation.matches import Match
from amodal.evaluation.metrics import KEYS, Evaluation
from amodal.evaluation.table import table

__all__ = [
    "KEYS",
    "Curve",
    "Evaluation",
    "Level",
    "Match",
    "evaluate",
    "levels",
    "matches",
    "pr_curves",
    "prepare",
    "table",
]
