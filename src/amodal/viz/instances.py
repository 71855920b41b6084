"""Pictures of amodal instances: what is seen is filled, what is hidden is hatched. Pillow and numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from amodal.errors import printable
from amodal.viz.labels import Cover, leader, place
from amodal.viz.scale import TARGET_SIDE, auto_scale

Pixels = npt.NDArray[np.uint8]
Canvas = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]
Color = tuple[int, int, int]

# Okabe & Ito's colours without black, then four of Tol's: distinct for the common kinds of colour blindness.
PALETTE: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (136, 34, 85),
    (51, 34, 136),
    (153, 153, 51),
    (238, 102, 119),
    (102, 37, 6),
)

_FILL, _TINT, _HATCH = 0.42, 0.16, 0.95
_SMALLEST_TEXT = 11  # pixels; smaller letters cannot be read


class MaskSource(Protocol):
    """N masks, bool [H, W] each: an array [N, H, W], or :class:`EachMask`."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any: ...


class EachMask:
    """Masks that are made when they are asked for, so that those of a large picture are never there at once."""

    def __init__(self, count: int, make: Callable[[int], Masks]) -> None:
        """
        Args:
            count: N.
            make: the mask, bool [H, W], of a row.
        """
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int, /) -> Masks:
        return self._make(row)


def color_of(index: int) -> Color:
    """RGB colour number ``index`` of the palette, which repeats after its twelve colours."""
    return PALETTE[index % len(PALETTE)]


def resized(image: Pixels, height: int, width: int) -> Pixels:
    """uint8 [height, width, 3] of an image uint8 [H, W, 3]."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def sampled(masks: Masks, height: int, width: int) -> Masks:
    """Masks bool [..., H, W] read at the pixel centres of another grid, bool [..., height, width]."""
    if masks.shape[-2:] == (height, width):
        return masks
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((height, width), masks.shape[-2:], strict=True)
    )
    found: Masks = masks[..., rows[:, None], columns[None]]
    return found


def draw_instances(
    image: Pixels,
    boxes: npt.NDArray[np.floating],
    amodal_masks: MaskSource,
    visible_masks: MaskSource | None,
    names: Sequence[str],
    scores: Sequence[float] | npt.NDArray[np.floating] | None = None,
    *,
    scale: int | None = None,
    weight: float = 1.0,
    colors: Sequence[int] | None = None,
    labels: bool = True,
    outline_boxes: bool = True,
) -> Pixels:
    """Draw N instances over an image.

    The visible part is filled in the instance's colour, the rest of the amodal mask is hatched, the amodal mask is
    outlined and its box drawn thin. Without visible masks all of the amodal mask is filled. Big objects come first.

    Args:
        image: uint8 [H, W, 3] RGB; not changed.
        boxes: [N, 4] amodal boxes, xyxy in pixels of ``image``.
        amodal_masks: bool [N, H, W], or masks that are made one by one.
        visible_masks: the same, or None for a system that has none.
        names: N class names.
        scores: N scores for the labels, or None for none (ground truth).
        scale: whole factor by which the picture is enlarged; None: chosen so that hatching and text can be read.
        weight: factor of line widths, hatching and text sizes, for pictures that are shown reduced.
        colors: N palette positions; None: 0 to N - 1.
        labels: write names and scores.
        outline_boxes: draw the amodal boxes.

    Returns:
        uint8 [H * scale, W * scale, 3].
    """
    height, width = image.shape[:2]
    scale = auto_scale(height, width) if scale is None else scale
    canvas = _enlarge(image, scale).astype(np.float32)
    unit = weight * max(1.0, max(canvas.shape[:2]) / TARGET_SIDE)
    palette = [color_of(i) for i in (range(len(names)) if colors is None else colors)]
    order = _by_area(amodal_masks)
    cover = Cover(height, width)
    for row in order:
        whole = amodal_masks[row]
        visible = whole if visible_masks is None else visible_masks[row]
        window = _window(whole | visible)
        if window is None:
            continue
        whole, visible = whole[window], visible[window]
        cover.add(*window, whole | visible)
        _draw_masks(canvas, window, whole, visible, palette[row], scale, unit, direction=1 if row % 2 else -1)
    picture = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture, "RGBA")
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale
    if outline_boxes:
        for row in order:
            _draw_box(pen, corners[row], palette[row], unit)
    if labels:
        words = [printable(name) for name in names]
        texts = [word if scores is None else f"{word} {scores[i]:.2f}" for i, word in enumerate(words)]
        _draw_labels(pen, picture.size, corners, texts, palette, unit, cover, scale)
    return np.asarray(picture)


def _by_area(masks: MaskSource) -> list[int]:
    areas = [int(np.count_nonzero(masks[row])) for row in range(len(masks))]
    return sorted(range(len(areas)), key=lambda row: -areas[row])


def _enlarge(image: Pixels, scale: int) -> Pixels:
    if scale == 1:
        return image
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _draw_masks(
    canvas: Canvas,
    window: tuple[slice, slice],
    amodal: Masks,
    visible: Masks,
    color: Color,
    scale: int,
    unit: float,
    direction: int,
) -> None:
    """Fill, hatch and outline one instance, touching only the window of the image that its masks [h, w] are from."""
    whole, seen = (_smooth(mask, scale) for mask in (amodal, visible))
    rows, columns = (slice(side.start * scale, side.stop * scale) for side in window)
    part = canvas[rows, columns]
    ink = np.array(color, dtype=np.float32)
    hidden = whole * (1 - seen)
    stripes = _stripes(rows, columns, unit, direction)
    _blend(part, ink, np.maximum(seen * _FILL, hidden * _TINT))
    # A pale gap between the stripes keeps the hatching readable on a ground of the object's own colour.
    _blend(part, np.full(3, 255, np.float32), hidden * (1 - stripes) * 0.22)
    _blend(part, ink, hidden * stripes * _HATCH)
    _blend(part, ink, _edge(whole > 0.5, max(1, round(1.6 * unit))) * 0.95)


def _window(mask: Masks) -> tuple[slice, slice] | None:
    """Rows and columns around a mask with a margin of one pixel; None if it is empty."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    (top, bottom), (left, right) = ((int(line[0]), int(line[-1]) + 1) for line in (ys, xs))
    return (
        slice(max(0, top - 1), min(mask.shape[0], bottom + 1)),
        slice(max(0, left - 1), min(mask.shape[1], right + 1)),
    )


def _smooth(mask: Masks, scale: int) -> Canvas:
    """The mask enlarged with smooth edges, float32 0 to 1."""
    if scale == 1:
        return mask.astype(np.float32)
    size = (mask.shape[1] * scale, mask.shape[0] * scale)
    soft = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC))
    # Sharpened to a ramp of about one output pixel.
    return np.clip((soft.astype(np.float32) / 255 - 0.5) * scale + 0.5, 0, 1)


def _stripes(rows: slice, columns: slice, unit: float, direction: int) -> Canvas:
    """Diagonal stripes with soft edges over a window of the picture, float32 0 to 1; aligned between windows."""
    period, thick = 10.0 * unit, 3.2 * unit
    ys = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    xs = np.arange(columns.start, columns.stop, dtype=np.float32)[None]
    away = np.abs((xs + direction * ys) / np.float32(np.sqrt(2)) % period - period / 2)
    share: Canvas = np.clip(thick / 2 - away + 0.5, 0, 1).astype(np.float32)
    return share


def _edge(mask: Masks, thick: int) -> Canvas:
    """The inner rim of a mask, ``thick`` pixels wide; the border of the picture counts as rim."""
    inner = mask.copy()
    for _ in range(thick):
        shrunk = np.zeros_like(inner)
        shrunk[1:-1, 1:-1] = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = shrunk
    return (mask & ~inner).astype(np.float32)


def _blend(part: Canvas, ink: npt.NDArray[np.float32], share: Canvas) -> None:
    part += (ink - part) * share[..., None]


def _draw_box(pen: ImageDraw.ImageDraw, corners: npt.NDArray[np.float64], color: Color, unit: float) -> None:
    x0, y0, x1, y1 = (float(value) for value in corners)
    if x1 > x0 and y1 > y0:
        # A box clipped at the border may be thinner than a pixel; its line is one pixel then.
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=(*color, 190), width=max(1, round(unit)))


@lru_cache(maxsize=32)
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all words in pictures, in pixels; it comes with Pillow."""
    return ImageFont.load_default(size)


def _draw_labels(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corners: npt.NDArray[np.float64],
    texts: Sequence[str],
    palette: Sequence[Color],
    unit: float,
    cover: Cover,
    scale: int,
) -> None:
    """Labels on a ground of the instance's colour, where they hide as little as possible; lines lead to far boxes."""
    crowd = float(np.clip(1.15 - len(texts) / 100, 0.65, 1.0))
    font = label_font(max(_SMALLEST_TEXT, round(15 * unit * crowd)))
    pad = max(2, round(3 * unit * crowd))
    bounds = [pen.textbbox((0, 0), text, font=font) for text in texts]
    height = max((bound[3] for bound in bounds), default=0) + 2 * pad
    sizes = [(bound[2] + 2 * pad, height) for bound in bounds]
    places = [
        np.array((x, y, x + width, y + height), np.float64)
        for (x, y), (width, _) in zip(place(corners, sizes, size, cover, scale), sizes, strict=True)
    ]
    lines = [leader(box, rectangle) for box, rectangle in zip(corners, places, strict=True)]
    for line, color in zip(lines, palette, strict=True):
        if line is not None:
            thick = max(2, round(1.5 * unit))
            pen.line(line, fill=(255, 255, 255, 150), width=thick + 2)
            pen.line(line, fill=color, width=thick)
    for rectangle, text, color in zip(places, texts, palette, strict=True):
        x0, y0, x1, y1 = (int(value) for value in rectangle)
        pen.rectangle((x0, y0, x1, y1), fill=(*color, 225))
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        pen.text((x0 + pad, y0 + pad), text, font=font, fill=(0, 0, 0) if bright > 125 else (255, 255, 255))
