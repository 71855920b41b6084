"""Line figures of experiments that vary a setting, drawn with Pillow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from amodal.files import write_picture
from amodal.reproduce.experiment import COSTS, Experiment
from amodal.reproduce.sources import Sources
from amodal.reproduce.tables import Entry, column_title
from amodal.viz.instances import color_of, label_font

_WIDTH, _HEIGHT = 900, 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 30, 70, 110
_INK, _RULE, _PAPER = (40, 40, 40), (215, 215, 215), (255, 255, 255)

Line = tuple[str, list["tuple[float, float] | None"]]
"""Title, and for each point (mean, deviation) or None where it is not known."""


def line_figure(experiment: Experiment, sources: Sources, entries: Sequence[Entry], out: Path) -> list[Path]:
    """One picture a test split, ``out/NAME[-SPLIT].png``: a panel for each varied setting and column.

    Points are evenly spaced, as the values are no scale; bars are the deviation over the seeds.

    Returns:
        The files.
    """
    known = {entry.name: entry for entry in entries}
    columns = [column for column in experiment.columns if column not in COSTS]
    paths = []
    for number, split in enumerate(sources.test):
        panels = []
        for key, points in experiment.vary.items():
            for column in columns:
                lines: list[Line] = []
                for row in experiment.rows:
                    members = [known[f"{row.name} {key}={point.label}"] for point in points]
                    values = [list(member.values(column, split.digest).values()) for member in members]
                    lines.append((row.title, [_point(value) for value in values]))
                panels.append(_panel(key, column_title(column), [point.label for point in points], lines))
        path = out / f"{experiment.name}{'' if number == 0 else '-' + split.name.replace('/', '_')}.png"
        write_picture(path, _sheet(panels, len(columns)))
        paths.append(path)
    return paths


def _point(values: list[float]) -> tuple[float, float] | None:
    if not values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _sheet(panels: Sequence[Image.Image], across: int) -> Image.Image:
    down = -(-len(panels) // across)
    sheet = Image.new("RGB", (_WIDTH * across, _HEIGHT * down), _PAPER)
    for place, panel in enumerate(panels):
        sheet.paste(panel, (_WIDTH * (place % across), _HEIGHT * (place // across)))
    return sheet


def _panel(x_title: str, y_title: str, labels: Sequence[str], lines: Sequence[Line]) -> Image.Image:
    image = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    font, small = label_font(26), label_font(22)
    known = [(mean - spread, mean + spread) for _, points in lines for mean, spread in filter(None, points)]
    low, high, step = _range([edge for pair in known for edge in pair])
    pen.text((_WIDTH / 2, 12), y_title, fill=_INK, font=font, anchor="ma")
    pen.text(((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12), x_title, fill=_INK, font=font, anchor="md")

    def x(place: int) -> float:
        return _LEFT + (place + 0.5) * (_WIDTH - _LEFT - _RIGHT) / len(labels)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        pen.line((_LEFT, y(value), _WIDTH - _RIGHT, y(value)), fill=_RULE, width=2)
        pen.text((_LEFT - 12, y(value)), f"{value:g}", fill=_INK, font=small, anchor="rm")
    for place, label in enumerate(labels):
        pen.text((x(place), _HEIGHT - _BOTTOM + 14), label, fill=_INK, font=small, anchor="ma")
    for number, (title, points) in enumerate(lines):
        color = color_of(number)
        there = [(x(place), y(point[0]), point) for place, point in enumerate(points) if point is not None]
        pen.line([(px, py) for px, py, _ in there], fill=color, width=4)
        for px, py, (mean, spread) in there:
            pen.line((px, y(mean - spread), px, y(mean + spread)), fill=color, width=3)
            pen.ellipse((px - 7, py - 7, px + 7, py + 7), fill=color)
        if len(lines) > 1:
            pen.text((_LEFT + 16, _TOP + 4 + 28 * number), title, fill=color, font=small)
    return image


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest value of the axis, and the step between its lines: 1, 2 or 5 times a power of ten."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    wide = max(high - low, 0.5)
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if wide / s <= 6)
    first = step * (low // step)
    count = int(-(-(high - first) // step)) or 1
    return round(first, 6), round(first + step * count, 6), step
