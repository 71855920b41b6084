"""The single pictures of Fig. 5: an object's prior-expanded boxes, its flows, and candidates of the re-ranking.

Pillow and numpy only. Panels are drawn larger than asked and reduced, which smooths lines and points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from amodal.viz.explanation import Bools, Floats
from amodal.viz.instances import draw_instances

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

BLUE: Color = (0, 98, 190)
RED: Color = (214, 30, 36)
GREEN: Color = (0, 140, 90)
GREY: Color = (128, 128, 128)
INK: Color = (25, 28, 33)
PALE: Color = (196, 201, 208)
FAINT: Color = (190, 213, 238)

_GROUND = 247
_FINE = 2  # a panel is drawn this many times larger
_OBJECT = 4  # palette position of a single object: a light blue, rare in photographs
_STILL = 0.5  # cells; shorter moves get no arrow


@dataclass(frozen=True)
class View:
    """The part of an image that a panel shows.

    Attributes:
        window: x0, y0, x1, y1 in pixels of the image.
        side: pixels of the panel's longer side.
    """

    window: tuple[float, float, float, float]
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the panel in pixels."""
        x0, y0, x1, y1 = self.window
        scale = self.side / max(x1 - x0, y1 - y0)
        return max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) at which it is drawn."""
        return self.size[0] * _FINE, self.size[1] * _FINE

    def move(self, boxes: Floats) -> Floats:
        """Boxes [..., 4], xyxy from pixels of the image to pixels of the canvas."""
        x0, y0, x1, y1 = self.window
        scale = np.array([self.canvas[0] / (x1 - x0), self.canvas[1] / (y1 - y0)] * 2)
        moved: Floats = (np.asarray(boxes, np.float64) - np.array([x0, y0, x0, y0])) * scale
        return moved


def view_around(boxes: Floats, picture: tuple[int, int] | None, side: int) -> View:
    """A square window around boxes with a margin of a sixth on each side.

    Args:
        boxes: [N, 4] xyxy pixels of the image; N >= 1.
        picture: (height, width) of the image, inside which the window stays; None: no limit.
        side: pixels of the panel's longer side.
    """
    low, high = boxes[:, :2].min(0).astype(float), boxes[:, 2:].max(0).astype(float)
    length = np.full(2, max(float((high - low).max()) * 4 / 3, 16.0))
    middle = (low + high) / 2
    if picture is not None:
        limit = np.array(picture[::-1], float)
        length = np.minimum(length, limit)
        middle = np.clip(middle, length / 2, limit - length / 2)
    start, end = middle - length / 2, middle + length / 2
    return View((float(start[0]), float(start[1]), float(end[0]), float(end[1])), side)


def place(masks: Floats | Bools, boxes: Floats, view: View) -> Bools:
    """Masks [N, h, w] in the frames ``boxes`` [N, 4] as bool [N, height, width] of the canvas, read bilinearly."""
    width, height = view.canvas
    placed = np.zeros((len(masks), height, width), bool)
    for n, (mask, box) in enumerate(zip(masks, view.move(boxes).reshape(-1, 4), strict=True)):
        rows = _tent(height, box[1], box[3], mask.shape[0])
        columns = _tent(width, box[0], box[2], mask.shape[1])
        placed[n] = rows @ mask.astype(np.float64) @ columns.T >= 0.5
    return placed


def _tent(points: int, low: float, high: float, cells: int) -> Floats:
    """[points, cells], weights with which pixel centres read a grid between two edges; 0 outside."""
    if not high > low:
        return np.zeros((points, cells))
    at = (np.arange(points) + 0.5 - low) / (high - low) * cells
    nearest = np.clip(at - 0.5, 0, cells - 1)  # The outer half cells count as inside.
    inside = (at >= 0) & (at <= cells)
    weights: Floats = np.clip(1 - np.abs(nearest[:, None] - np.arange(cells)), 0, None) * inside[:, None]
    return weights


def image_panel(view: View, image: Pixels | None) -> Pixels:
    """The image in the window, or a plain ground."""
    return _reduce(_ground(view, image))


def masks_panel(
    view: View,
    image: Pixels | None,
    box: Floats,
    amodal: Bools | Floats,
    amodal_frame: Floats,
    visible: Bools | Floats,
    visible_frame: Floats,
) -> Pixels:
    """One object, drawn as in all pictures: what is seen is filled, what is hidden is hatched.

    Args:
        view: the window.
        image: uint8 [H, W, 3], or None for a plain ground.
        box: [4], amodal box.
        amodal: [h, w], amodal mask in the frame ``amodal_frame`` [4].
        visible: [h, w], visible mask in the frame ``visible_frame`` [4].
    """
    drawn = draw_instances(
        np.asarray(_ground(view, image)),
        view.move(box[None]),
        place(amodal[None], amodal_frame[None], view),
        place(visible[None], visible_frame[None], view),
        [""],
        scale=1,
        weight=_FINE * 0.9,
        colors=[_OBJECT],
        labels=False,
    )
    return _reduce(Image.fromarray(drawn))


def box_panel(
    view: View,
    image: Pixels | None,
    visible: Floats | Bools,
    frame: Floats,
    seen_box: Floats,
    expanded: Floats,
    truth: Floats | None = None,
) -> Pixels:
    """A visible box and what one regression transformation makes of it (Eq. 4).

    Args:
        view: the window.
        image: uint8 [H, W, 3], or None for a plain ground.
        visible: [h, w], visible mask in the frame ``frame``.
        frame: [4].
        seen_box: [4], B^v, drawn blue.
        expanded: [4], B^p_k, drawn red.
        truth: [4], the true amodal box, dashed; None for none.
    """
    canvas = np.asarray(_ground(view, image)).copy()
    _tint(canvas, place(visible[None], frame[None], view)[0], BLUE, 0.3)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    if truth is not None:
        _rectangle(pen, view.move(truth), INK, 1.5, dash=7)
    # The blue frame is the thinner one, so that both are seen where they coincide.
    _rectangle(pen, view.move(expanded), RED, 4.0)
    _rectangle(pen, view.move(seen_box), BLUE, 2.0, cased=False)
    return _reduce(picture)


def flow_panel(visible: Floats | Bools, amodal: Floats | Bools, flow: Floats | None, box: Floats, side: int) -> Pixels:
    """A flow transformation (Eq. 3): blue points are seen, red ones belong to the retrieved shape, arrows expand.

    Args:
        visible: [S, S], visible mask in the frame ``box``.
        amodal: [S, S], a slot's amodal mask.
        flow: [2, G, G], x and y, backward, in units in which the frame is 2 wide; arrows have the opposite sign.
            None: points only.
        box: [4], the frame; the panel has its aspect, between 2 : 3 and 3 : 2.
        side: pixels of the panel's longer side.
    """
    grid = 14 if flow is None else flow.shape[-1]
    wide, high = (float(np.clip(length, 1e-3, None)) for length in (box[2] - box[0], box[3] - box[1]))
    aspect = float(np.clip(wide / high, 2 / 3, 1.5))
    view = View((0.0, 0.0, aspect, 1.0), side)
    picture = _ground(view, None)
    pen = ImageDraw.Draw(picture)
    size = np.array(view.canvas, float)
    unit = float(size.min()) / grid / 21  # The sizes below fit cells of 21 pixels.
    ys, xs = (np.mgrid[:grid, :grid] + 0.5) / grid
    centres = np.stack([xs, ys], -1)
    whole, share = (_cells(mask, grid) for mask in (amodal, visible))
    shape, seen = whole >= 0.5, share >= 0.5
    for row, column in np.argwhere(~shape & (share == 0)):
        _dot(pen, centres[row, column] * size, PALE, 1.1 * unit)
    if flow is not None:
        # Backward flow says where a cell fetches from; what is drawn is the way from there to the cell.
        moved = np.moveaxis(np.asarray(flow, np.float64), 0, -1) / 2
        for row, column in np.argwhere(shape & (np.hypot(*np.moveaxis(moved, -1, 0)) * grid > _STILL)):
            target = centres[row, column]
            _arrow(pen, (target + moved[row, column]) * size, target * size, unit)
    for row, column in np.argwhere(shape):
        _dot(pen, centres[row, column] * size, RED, 5.8 * unit)
    # Cells of which less than half is seen have smaller blue points: flows may start there.
    for row, column in np.argwhere(share > 0):
        _dot(pen, centres[row, column] * size, BLUE, (3.6 if seen[row, column] else 2.2) * unit)
    return _reduce(picture)


def candidate_panel(view: View, image: Pixels | None, seen: Bools, others: Bools, shape: Bools, box: Floats) -> Pixels:
    """A candidate of the re-ranking in the place where T^r_m(B^v) puts it, judged by what else is seen.

    Blue: seen of the object; grey: seen of other objects; green: claimed hidden, and another object is there to hide
    it; red: claimed where nothing is there to hide it; pale blue: seen, but not part of the candidate.

    Args:
        view: the window.
        image: uint8 [H, W, 3], shown faint, or None for a plain ground.
        seen: bool canvas mask (:func:`place`), visible mask of the object.
        others: bool canvas mask, visible masks of other objects.
        shape: bool canvas mask, amodal mask of the candidate.
        box: [4], T^r_m(B^v).
    """
    canvas = np.asarray(_ground(view, image, fade=0.75)).copy()
    _tint(canvas, others & ~seen & ~shape, GREY, 0.55)
    _tint(canvas, seen & shape, BLUE, 0.62)
    _tint(canvas, seen & ~shape, FAINT, 0.75)
    _tint(canvas, shape & others & ~seen, GREEN, 0.6)
    _tint(canvas, shape & ~others & ~seen, RED, 0.75)
    picture = Image.fromarray(canvas)
    _rectangle(ImageDraw.Draw(picture), view.move(box), INK, 1.5)
    return _reduce(picture)


def _ground(view: View, image: Pixels | None, fade: float = 0.0) -> Image.Image:
    """The canvas of a panel: the image in the window, ``fade`` of the way to white."""
    if image is None:
        return Image.new("RGB", view.canvas, (_GROUND,) * 3)
    height, width = image.shape[:2]
    limit = np.array([width, height] * 2, float)
    x0, y0, x1, y1 = np.clip(view.window, 0, limit).tolist()
    # What of the window lies outside the image is left plain.
    plain = Image.new("RGB", view.canvas, (_GROUND,) * 3)
    left, top, right, bottom = view.move(np.array([x0, y0, x1, y1])).round().astype(int).tolist()
    if right > left and bottom > top:
        method = Image.Resampling.BICUBIC
        part = Image.fromarray(image).resize((right - left, bottom - top), method, box=(x0, y0, x1, y1))
        plain.paste(part, (left, top))
    return Image.blend(plain, Image.new("RGB", view.canvas, (255,) * 3), fade) if fade else plain


def _reduce(picture: Image.Image) -> Pixels:
    return np.asarray(picture.reduce(_FINE))


def _tint(canvas: Pixels, mask: Bools, color: Color, share: float) -> None:
    canvas[mask] = (canvas[mask] * (1 - share) + np.array(color) * share).round().astype(np.uint8)


def _rectangle(
    pen: ImageDraw.ImageDraw, corners: Floats, color: Color, width: float, *, dash: int = 0, cased: bool = True
) -> None:
    """A frame around a box, moved inside the panel; lengths in panel pixels. A white casing sets it off any picture."""
    right, bottom = (length - 1 - _FINE for length in pen.im.size)
    low, high = np.clip(corners[:2], _FINE, (right, bottom)), np.clip(corners[2:], _FINE, (right, bottom))
    x0, y0, x1, y1 = (float(value) for value in (*low, *high))
    if not (x1 > x0 and y1 > y0):
        return
    edge = round(width * _FINE)
    if cased:
        around = (x0 - _FINE, y0 - _FINE, x1 + _FINE, y1 + _FINE)
        pen.rectangle(around, outline=(255, 255, 255), width=edge + 2 * _FINE)
    if not dash:
        pen.rectangle((x0, y0, x1, y1), outline=color, width=edge)
        return
    for start, end in _dashes((x0, y0, x1, y1), dash * _FINE):
        pen.line((*start, *end), fill=color, width=edge)


def _dashes(box: tuple[float, float, float, float], length: int) -> Sequence[tuple[tuple[float, float], ...]]:
    """Pieces of a box's outline with gaps of two thirds of their length."""
    x0, y0, x1, y1 = box
    steps = np.arange(0, max(x1 - x0, y1 - y0), length * 5 / 3)
    level = [((x, y), (min(x + length, x1), y)) for y in (y0, y1) for x in x0 + steps if x < x1]
    upright = [((x, y), (x, min(y + length, y1))) for x in (x0, x1) for y in y0 + steps if y < y1]
    return level + upright


def _cells(mask: Floats | Bools, grid: int) -> Floats:
    """Share of each cell of a coarser grid that a mask [S, S], cut at 0.5, covers."""
    factor = mask.shape[-1] // grid
    means: Floats = np.greater_equal(mask, 0.5).reshape(grid, factor, grid, factor).mean((1, 3))
    return means


def _arrow(pen: ImageDraw.ImageDraw, start: Floats, end: Floats, unit: float) -> None:
    """A grey arrow whose head touches the point at its end."""
    way = end - start
    length = float(np.hypot(*way))
    along = way / max(length, 1e-9)
    across = np.array([-along[1], along[0]])
    tip = end - along * min(5.8 * unit, length / 2)
    base = tip - along * min(6.0 * unit, length / 2)
    pen.line((*start, *base), fill=GREY, width=max(1, round(1.3 * unit)))
    wing = across * 3.0 * unit
    pen.polygon([tuple(tip), tuple(base + wing), tuple(base - wing)], fill=GREY)


def _dot(pen: ImageDraw.ImageDraw, at: Floats, color: Color, radius: float) -> None:
    x, y = (float(value) for value in at)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
