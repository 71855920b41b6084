"""The rows of an object's priors as one picture: headings with their keys, explanations, panels, captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from amodal.errors import printable
from amodal.viz.instances import label_font
from amodal.viz.prior_panels import INK, Pixels
from amodal.viz.priors import TOP, Key, Row
from amodal.viz.sheet import wrap

_GAP, _MARGIN, _TITLE, _HEADING, _CAPTION = 14, 22, 22, 16, 13
_SOFT, _PLAIN = (95, 100, 108), (70, 75, 82)
_STEP = round(1.35 * _CAPTION)  # from line to line of small text
_MARK = 22  # pixels of a key's mark


def figure(rows: Sequence[Row], title: str, *, subtitle: str = "", side: int = 300) -> Pixels:
    """Rows of one object as one picture, uint8 [H, W, 3], on white.

    Args:
        rows: as :func:`amodal.viz.priors.rows_of` gives them, of panels at most ``side`` pixels long.
        title: first line.
        subtitle: second line.
        side: pixels of a cell.
    """
    columns = max((len(row.panels) for row in rows), default=1)
    width = max(columns, TOP) * (side + _GAP) - _GAP + 2 * _MARGIN
    placed = [_Lines(row, width, side) for row in rows]
    top = _MARGIN + round(1.5 * _TITLE) + (round(1.7 * _CAPTION) if subtitle else 0)
    page = Image.new("RGB", (width, top + sum(one.height for one in placed) + _MARGIN), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), printable(title), font=label_font(_TITLE), fill=INK)
    if subtitle:
        at = (_MARGIN, _MARGIN + round(1.5 * _TITLE))
        pen.text(at, printable(subtitle), font=label_font(_CAPTION), fill=_SOFT)
    for one in placed:
        one.draw(page, pen, top)
        top += one.height
    return np.asarray(page)


class _Lines:
    """A row whose texts are broken into lines."""

    def __init__(self, row: Row, width: int, side: int) -> None:
        self.row, self.side = row, side
        self.keys = _break(row.heading, width - 2 * _MARGIN)
        self.note = wrap(row.note, _CAPTION, width - 2 * _MARGIN)
        self.captions = [wrap(caption, _CAPTION, side) for caption in row.captions]
        self.panels = max(int(panel.shape[0]) for panel in row.panels)

    @property
    def height(self) -> int:
        """Pixels, with the space around it."""
        text = _STEP * (len(self.note) + max(map(len, self.captions)))
        return round(1.6 * _HEADING) * len(self.keys) + self.panels + text + 2 * _HEADING

    def draw(self, page: Image.Image, pen: ImageDraw.ImageDraw, top: int) -> None:
        """Draws it below ``top``."""
        top += _HEADING
        for keys in self.keys:
            left = float(_MARGIN)
            for key in keys:
                left = _draw_key(pen, key, left, top) + _HEADING
            top += round(1.6 * _HEADING)
        for line in self.note:
            pen.text((_MARGIN, top), line, font=label_font(_CAPTION), fill=_SOFT)
            top += _STEP
        top += 6
        for column, (panel, lines) in enumerate(zip(self.row.panels, self.captions, strict=True)):
            left = _MARGIN + column * (self.side + _GAP)
            at = (left + (self.side - panel.shape[1]) // 2, top + (self.panels - panel.shape[0]) // 2)
            page.paste(Image.fromarray(panel), at)
            for number, line in enumerate(lines):
                middle = (left + self.side / 2, top + self.panels + 5 + number * _STEP)
                pen.text(middle, line, font=label_font(_CAPTION), fill=_PLAIN, anchor="ma")


def _break(keys: Sequence[Key], width: float) -> list[list[Key]]:
    """Keys in lines that are at most ``width`` pixels wide."""
    lines: list[list[Key]] = [[]]
    left = 0.0
    for key in keys:
        length = label_font(_HEADING).getlength(key.text) + (_MARK + 6 if key.mark else 0) + _HEADING
        if lines[-1] and left + length > width:
            lines.append([])
            left = 0.0
        lines[-1].append(key)
        left += length
    return lines


def _draw_key(pen: ImageDraw.ImageDraw, key: Key, left: float, top: float) -> float:
    """Draws a mark with its words; where they end."""
    low, high, middle = top + 3, top + _HEADING, top + _HEADING / 2 + 2
    right = left + _MARK
    if key.mark == "dot":
        pen.ellipse((left + 5, middle - 6, left + 17, middle + 6), fill=key.color)
    elif key.mark == "frame":
        pen.rectangle((left, low, right, high), outline=key.color, width=3)
    elif key.mark == "dashed":
        for start in range(0, _MARK, 8):
            pen.line((left + start, middle, left + start + 5, middle), fill=key.color, width=2)
    elif key.mark == "arrow":
        pen.line((left, middle, right - 6, middle), fill=key.color, width=2)
        pen.polygon([(right, middle), (right - 8, middle - 5), (right - 8, middle + 5)], fill=key.color)
    elif key.mark == "fill":
        pen.rectangle((left, low, right, high), fill=key.color)
    if key.mark:
        left = right + 6
    font = label_font(_HEADING)
    pen.text((left, top), key.text, font=font, fill=INK)
    return left + pen.textlength(key.text, font=font)
