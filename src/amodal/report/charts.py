"""Charts of the report as inline SVG: no script, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from amodal.errors import printable
from amodal.evaluation.levels import Curve, Level

_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 18, 56

LINES = 5
"""Colours of lines that the style sheet has."""


def bars(levels: Sequence[Level]) -> str:
    """AP (percent) by hidden share: one bar a level, with its value and how many objects it stands for."""
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(levels), 1)
    parts = [_grid(100, 20, "AP")]
    for place, level in enumerate(levels):
        x = _LEFT + place * step + step * 0.16
        middle, width = x + step * 0.34, step * 0.68
        value = level.ap
        if value is not None:
            y = _y(value / 100)
            parts.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_y(0) - y:.1f}" rx="3"/>'
            )
        top = _y((value or 0) / 100) - 6
        parts.append(_text(middle, top, "–" if value is None else f"{value:.1f}", "value"))
        parts.append(_text(middle, _y(0) + 18, f"{100 * level.low:.0f}–{100 * level.high:.0f} %"))
        parts.append(_text(middle, _y(0) + 34, f"n = {level.objects}", "faint"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, "hidden share of the object", "faint"))
    told = "; ".join(
        f"{100 * level.low:.0f} to {100 * level.high:.0f} % hidden: "
        + ("undefined" if level.ap is None else f"{level.ap:.1f}")
        for level in levels
    )
    return _svg(f"Amodal mask AP by hidden share. {told}.", parts)


def curves(found: Sequence[Curve]) -> str:
    """Precision over recall, one line for each IoU threshold; solid first, dashed second."""
    parts = [_grid(1, 0.2, "precision")]
    parts += [_text(_x(place / 5), _y(0) + 18, f"{place / 5:g}") for place in range(6)]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _y(0) + 38, "recall", "faint"))
    told = []
    for place, curve in enumerate(found):
        line = " ".join(f"{_x(r):.1f},{_y(p):.1f}" for r, p in zip(curve.recall, curve.precision, strict=True))
        parts.append(f'<polyline class="line line{place}" points="{line}"/>')
        y = _TOP + 14 + 20 * place
        parts.append(f'<line class="line line{place}" x1="{_WIDTH - 126}" x2="{_WIDTH - 94}" y1="{y}" y2="{y}"/>')
        parts.append(_text(_WIDTH - 88, y + 5, f"IoU {curve.iou:g}", anchor="start"))
        mean = sum(curve.precision) / len(curve.precision)
        told.append(f"at IoU {curve.iou:g} mean precision {mean:.2f}")
    return _svg(f"Precision over recall of the amodal masks: {'; '.join(told)}.", parts)


def series(found: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str) -> str:
    """Values over training steps, one line for each run that has any.

    Args:
        found: name and (step, value) points of each run, in the order of their colours.
        title: of the upright axis.
    """
    points = [point for _, line in found for point in line]
    last, most = max(1.0, *(x for x, _ in points)), max(y for _, y in points)
    top, step = _nice(most)
    parts = [_grid(top, step, title)]
    width, ticks = _nice(last)
    marks = [place * ticks for place in range(round(width / ticks) + 1)]
    parts += [_text(_x(mark / last), _y(0) + 18, f"{mark:g}") for mark in marks if mark <= last]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _y(0) + 38, "step", "faint"))
    told, keys = [], []
    for place, (name, line) in enumerate(found):
        if not line:
            continue
        style = f"line line{place % LINES}"
        places = [(_x(x / last), _y(max(y, 0.0) / top)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{style}" points="{path}"/>')
        if len(places) == 1:  # A line of one point cannot be seen.
            parts.append(f'<circle class="{style}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="4"/>')
        shown = printable(name)
        mark = f'<svg viewBox="0 0 22 16" aria-hidden="true"><line class="{style}" x1="0" x2="22" y1="8" y2="8"/></svg>'
        keys.append(f"<li>{mark}{escape(shown)}</li>")
        told.append(f"{shown} ends at {line[-1][1]:.3g}")
    # Below the chart: inside it, names would lie on the lines.
    chart = _svg(f"{title} over training steps: {'; '.join(told)}.", parts)
    return f'{chart}<ul class="key">{"".join(keys)}</ul>'


def _nice(most: float) -> tuple[float, float]:
    """A round number that is at least ``most``, and a step that divides it into at most six."""
    if most <= 0:
        return 1.0, 0.2
    power = 10.0 ** math.floor(math.log10(most))
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0) if most <= 6 * factor * power)
    return math.ceil(most / step - 1e-9) * step, step


def _grid(top: float, step: float, title: str) -> str:
    """Horizontal lines with their values, and the title of the axis."""
    parts = []
    for place in range(round(top / step) + 1):
        value = place * step
        y = _y(value / top)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 7, y + 5, f"{value:g}", anchor="end"))
    middle = (_TOP + _y(0)) / 2
    turned = f'transform="translate(13 {middle:.0f}) rotate(-90)"'
    parts.append(f'<text class="faint" text-anchor="middle" {turned}>{escape(title)}</text>')
    return "".join(parts)


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "middle") -> str:
    name = f' class="{style}"' if style else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(label: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'
