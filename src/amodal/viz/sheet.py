"""Pictures beside each other on white, each under its caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from amodal.errors import printable
from amodal.viz.instances import label_font

Pixels = npt.NDArray[np.uint8]

LEGEND = "filled: visible part; hatched: hidden part; thin frame: amodal box"
"""How to read a picture, in words."""

_GAP, _TEXT, _LEAST = 12, 16, 320
_INK, _SOFT = (25, 28, 33), (95, 100, 108)


def beside(panels: Sequence[Pixels], captions: Sequence[str], note: str = LEGEND) -> Pixels:
    """Panels in a row, uint8 [H, W, 3].

    Args:
        panels: uint8 [h, w, 3] each.
        captions: one a panel, above it; broken into lines where it is wider than its column.
        note: below all, in grey.
    """
    font = label_font(_TEXT)
    widths = [max(panel.shape[1], _LEAST) for panel in panels]
    width = sum(widths) + _GAP * (len(panels) + 1)
    lines = [wrap(caption, _TEXT, column) for caption, column in zip(captions, widths, strict=True)]
    notes = wrap(note, _TEXT - 3, width - 2 * _GAP)
    step = round(1.35 * _TEXT)
    top = _GAP + step * max(map(len, lines))
    bottom = top + max(panel.shape[0] for panel in panels) + _GAP // 2
    sheet = Image.new("RGB", (width, bottom + step * len(notes) + _GAP), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    left = _GAP
    for panel, words, column in zip(panels, lines, widths, strict=True):
        for number, line in enumerate(words):
            pen.text((left, _GAP // 2 + step * number), line, font=font, fill=_INK)
        sheet.paste(Image.fromarray(panel), (left, top))
        left += column + _GAP
    for number, line in enumerate(notes):
        pen.text((_GAP, bottom + step * number), line, font=label_font(_TEXT - 3), fill=_SOFT)
    return np.asarray(sheet)


def wrap(text: str, size: int, width: float) -> list[str]:
    """Lines of a text in letters of ``size`` pixels, at most ``width`` pixels wide unless a word alone is wider."""
    font = label_font(size)
    lines: list[str] = []
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
