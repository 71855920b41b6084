"""``report.html``: what a model sees beside the truth, then the numbers. One file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from amodal.errors import counted, encodable
from amodal.evaluation.levels import levels, pr_curves
from amodal.evaluation.matches import Match
from amodal.evaluation.metrics import Evaluation
from amodal.evaluation.table import BY_CLASS, PARTS
from amodal.files import write_text
from amodal.report.charts import bars, curves
from amodal.report.page import legend, page
from amodal.report.pictures import SHOWN_FROM, Painter
from amodal.report.priors import PriorCase, priors_section

SCENES, CASES = 10, 6

_ROWS = (
    ("AP", "average precision, IoU .50 to .95"),
    ("AP50", "at IoU .50"),
    ("AP75", "at IoU .75"),
    ("AR100", "average recall, up to 100 detections an image"),
    ("AP-occ", "objects at least 15 % hidden; detections that claim to be less hidden are ignored"),
    ("AP-occ-gt", "objects at least 15 % hidden, as the truth says"),
    ("AP-of-mask", "AP of the boxes around the amodal masks"),
    ("mIoU", "mean IoU of the amodal masks; 0 for a missed object"),
    ("mIoU-occ", "mean IoU of the hidden parts of objects at least 15 % hidden; 0 for a missed one"),
)


def write_report(
    out: Path,
    evaluation: Evaluation,
    images: Path,
    *,
    metrics: Mapping[str, Any],
    title: str,
    facts: Mapping[str, str],
    priors: Sequence[PriorCase] = (),
) -> Path:
    """Writes ``out/report.html``.

    Args:
        out: folder, made where missing.
        evaluation: truth and results, as :func:`amodal.evaluation.prepare` gives them.
        images: folder that the truth's file names are relative to.
        metrics: of this evaluation, with "per_class".
        title: headline, plain text.
        facts: what the last section tells about the run, plain text.
        priors: objects whose expansion priors are shown; none for a system that has no prior.

    Returns:
        Path of the report.

    An image that cannot be read or drawn is left out; its place and the last section say so, with the reason.
    """
    painter = Painter(evaluation, images)
    sections = [
        _head(title, metrics, facts),
        _scenes(evaluation, painter),
        priors_section(evaluation, priors),
        _charts(evaluation),
        _table(metrics),
        _classes(metrics, evaluation),
        _cases(evaluation, painter),
        _facts({**facts, **_left_out(painter)}),
    ]
    path = out / "report.html"
    write_text(path, encodable(page(title, "\n".join(sections))))
    return path


def _left_out(painter: Painter) -> dict[str, str]:
    """The fact that some images could not be shown, with their names and reasons; nothing where all could."""
    if not painter.failed:
        return {}
    named = "; ".join(f"{name}: {reason}" for name, reason in painter.failed.items())
    return {"Images that could not be shown": f"{len(painter.failed)}: {named}"}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _head(title: str, metrics: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    tiles = [
        (metrics["mask"]["AP"], "AP of the amodal masks"),
        (metrics["mask"]["AP50"], "AP at IoU .50"),
        (metrics["mask"]["AP-occ-gt"], "AP of objects at least 15 % hidden"),
        (metrics["mask"]["mIoU-occ"], "mean IoU of the hidden parts, 0 where missed"),
        (metrics["visible"]["AP"], "AP of the visible masks"),
    ]
    shown = "".join(
        f'<div class="tile"><b>{_number(value)}</b><span>{name}</span></div>'
        for value, name in tiles
        if value is not None
    )
    system = escape(facts.get("System", ""))
    by = f"{system} on " if system else ""
    on = f"{counted(metrics['images'], 'image')} with {counted(metrics['instances'], 'object')}"
    lead = f"{by}{on}; all numbers in percent."
    return f'<header><h1>{escape(title)}</h1><p class="soft">{lead}</p><div class="tiles">{shown}</div></header>'


def _scenes(evaluation: Evaluation, painter: Painter) -> str:
    truth = evaluation.annotations
    filled = np.flatnonzero(np.diff(truth.first) > 0)
    # Rounding may meet an image twice.
    chosen = filled[np.unique(np.linspace(0, len(filled) - 1, min(SCENES, len(filled))).round().astype(int))]
    body = "".join(_scene(painter, truth.file_names[index], index) for index in chosen.tolist())
    note = (
        f"Images at even steps through the set, not the best ones; detections with a score of at least {SHOWN_FROM:g}. "
        "An object and its detection have the same colour."
    )
    return f'<section><h2>Pictures</h2><p class="note">{note}</p>{legend()}{body}</section>'


def _scene(painter: Painter, file_name: str, index: int) -> str:
    name = escape(file_name)
    try:
        plain, found, truth = painter.scene(index)
    except Exception as fault:  # Of this image, and no reason for no report.
        why = escape(painter.note(index, fault))
        return f'<article class="scene"><p>{name}</p><p class="note">not shown: {why}</p></article>'
    panels = (("input", plain, "input"), ("found", found, "prediction"), ("truth", truth, "truth"))
    figures = "".join(
        f'<figure class="{kind}"><img src="{uri}" alt="{caption} for {name}" loading="lazy">'
        f"<figcaption>{caption}</figcaption></figure>"
        for kind, uri, caption in panels
    )
    strip = (
        f'<div class="strip" role="group" tabindex="0" aria-label="{name}: input, prediction, truth">{figures}</div>'
    )
    return f'<article class="scene"><p>{name}</p>{strip}</article>'


def _charts(evaluation: Evaluation) -> str:
    found = pr_curves(evaluation)
    charts = [("AP by how much of an object is hidden", bars(levels(evaluation)))]
    if found:
        charts.append(("Precision and recall, mean over the classes", curves(found)))
    body = "".join(f'<div class="chart"><h3>{name}</h3>{chart}</div>' for name, chart in charts)
    return f'<section><h2>Curves of the amodal masks</h2><div class="charts">{body}</div></section>'


def _table(metrics: Mapping[str, Any]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for _, name in PARTS)
    rows = []
    for key, meaning in _ROWS:
        cells = "".join(
            f"<td>{_number(metrics[part][key])}</td>" if key in metrics[part] else "<td></td>" for part, _ in PARTS
        )
        rows.append(f'<tr><th scope="row">{key}<small>{meaning}</small></th>{cells}</tr>')
    covered = metrics.get("coverage")
    note = (
        ""
        if covered is None
        else f'<p class="note">{100 * covered:.0f} % of the hidden pixels lie under other annotated objects.</p>'
    )
    return (
        f'<section><h2>Metrics</h2><div class="wide" tabindex="0" role="region" aria-label="metrics">'
        f'<table><thead><tr><th scope="col">metric</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"{note}</section>"
    )


def _classes(metrics: Mapping[str, Any], evaluation: Evaluation) -> str:
    head = "".join(f'<th scope="col">{part} {key}</th>' for part, key in BY_CLASS)
    counts = np.bincount(evaluation.annotations.labels[~evaluation.crowd], minlength=len(metrics["per_class"]))
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{count}</td>'
        + "".join(f"<td>{_number(numbers[part][key])}</td>" for part, key in BY_CLASS)
        + "</tr>"
        for (name, numbers), count in zip(metrics["per_class"].items(), counts.tolist(), strict=True)
    ]
    return (
        '<section><h2>Classes</h2><div class="wide" tabindex="0" role="region" aria-label="metrics by class"><table>'
        f'<thead><tr><th scope="col">class</th><th scope="col">objects</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cases(evaluation: Evaluation, painter: Painter) -> str:
    best, worst, missed = choose_cases(evaluation.matches, evaluation.annotations.amodal_area)
    kind = "hidden part" if any(match.hidden_iou is not None for match in evaluation.matches) else "amodal mask"
    found = "".join(
        f'<h3>{name}</h3><div class="cases">{"".join(_case(match, evaluation, painter) for match in matches)}</div>'
        for name, matches in (
            (f"Best: highest IoU of the {kind}", best),
            (f"Worst: lowest IoU of the {kind} among the objects found", worst),
            ("Missed: largest objects without a detection of their class", missed),
        )
        if matches
    )
    note = (
        "Single objects, prediction left, truth right. Found means: a detection of its class with a score and an "
        "amodal mask IoU of at least .50."
    )
    return f'<section><h2>Best and worst cases</h2><p class="note">{note}</p>{found}</section>'


def choose_cases(matches: Sequence[Match], areas: Any) -> tuple[list[Match], list[Match], list[Match]]:
    """Best and worst found objects, and missed ones, at most ``CASES`` each.

    Objects hidden by 5 to 90 % are compared by the IoU of their hidden parts; without visible masks all objects are
    compared by the IoU of the amodal masks. No object is both best and worst.

    Args:
        matches: what became of every object.
        areas: amodal area in pixels by row of the annotation set.
    """
    found = [match for match in matches if match.detection is not None]
    hidden = [match for match in found if match.hidden_iou is not None and 0.1 <= match.rate <= 0.95]
    ranked = sorted(hidden or found, key=lambda match: -(match.iou if match.hidden_iou is None else match.hidden_iou))
    count = min(CASES, len(ranked) // 2)
    missed = sorted((match for match in matches if match.detection is None), key=lambda match: -int(areas[match.row]))
    return ranked[:count], ranked[::-1][:count], missed[:CASES]


def _case(match: Match, evaluation: Evaluation, painter: Painter) -> str:
    truth = evaluation.annotations
    name = escape(truth.class_names[match.label])
    index = int(truth.image_index[match.row])
    where = escape(truth.file_names[index])
    try:
        found, true = painter.case(match)
    except Exception as fault:  # Of this image, and no reason for no report.
        return (
            f'<div class="case"><p><b>{name}</b> in {where}, not shown: {escape(painter.note(index, fault))}</p></div>'
        )
    told = [f"{100 * (1 - match.rate):.0f} % hidden"]
    if match.detection is None:
        told.append("not found")
    else:
        told.append(f"mask IoU {match.iou:.2f}")
        if match.hidden_iou is not None:
            told.append(f"hidden-part IoU {match.hidden_iou:.2f}")
        told.append(f"score {match.score:.2f}")
    pair = "".join(
        f'<figure><img src="{uri}" alt="{what} of a {name} in {where}" loading="lazy">'
        f"<figcaption>{what}</figcaption></figure>"
        for uri, what in ((found, "prediction"), (true, "truth"))
    )
    return (
        f'<div class="case"><div class="pair">{pair}</div><p><b>{name}</b>, {", ".join(told)}<br>'
        f'<span class="soft">{where}, annotation {match.annotation_id}</span></p></div>'
    )


def _facts(facts: Mapping[str, str]) -> str:
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in {**facts, "Made": made}.items()
    )
    return f"<section><h2>This run</h2><dl>{rows}</dl></section>"
