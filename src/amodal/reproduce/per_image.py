"""What became of every detection of a run, small enough to be kept: AP can be had again from it, of any draw of images.

Not numbers of single images: AP ranks the detections of all images together. So each detection is kept with its
image, class and score, and for each metric one bit for each of the ten IoUs says whether it took an object that
counts, and one whether it is ignored; of the objects it is kept how many count.
"""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.evaluation.coco import IOU_THRESHOLDS, Bools, Floats, Ints
from amodal.evaluation.metrics import Evaluation
from amodal.evaluation.occlusion import LARGEST_RATE

VERSION = 1
METRICS = ("mask.AP", "mask.AP-occ-gt", "box.AP", "box.AP-occ-gt")
"""The metrics that are kept."""

_OF_DETECTIONS = {
    "image": "int32", "label": "int32", "scores": "float64",
    **{f"{part} {metric}": "uint16" for part in ("matched", "ignored") for metric in METRICS},
}  # fmt: skip
_OF_OBJECTS = {
    "object_image": "int32", "object_label": "int32", **{f"counts {metric}": "bool" for metric in METRICS},
}  # fmt: skip
"""Arrays by name -> their type."""

_BITS = 1 << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


@dataclass(frozen=True)
class PerImage:
    """D detections and G objects on ``images`` images of ``classes`` classes.

    Attributes:
        images, classes: how many there are; images are numbered by rising id.
        image, label: int32 [D], of each detection; sorted by image and class, then by falling score.
        scores: float64 [D].
        matched: metric -> uint16 [D], bit t: took an object that counts, at the t-th IoU.
        ignored: metric -> uint16 [D], bit t: took an object that does not count.
        object_image, object_label: int32 [G].
        counts: metric -> bool [G], whether an object counts.
    """

    images: int
    classes: int
    image: NDArray[np.int32]
    label: NDArray[np.int32]
    scores: Floats
    matched: dict[str, NDArray[np.uint16]]
    ignored: dict[str, NDArray[np.uint16]]
    object_image: NDArray[np.int32]
    object_label: NDArray[np.int32]
    counts: dict[str, Bools]

    @classmethod
    def of(cls, evaluation: Evaluation) -> PerImage:
        """The detections of an evaluation, matched as its metrics match them."""
        pairing, found = evaluation.pairing, evaluation.detections
        hidden = evaluation.ignored | (evaluation.rates > LARGEST_RATE)
        matched, ignored, counts = {}, {}, {}
        for metric in METRICS:
            ious = evaluation.mask_ious if metric.startswith("mask.") else evaluation.box_ious
            out = hidden if metric.endswith("-occ-gt") else evaluation.ignored
            matched[metric], ignored[metric] = _match(evaluation, ious, out)
            counts[metric] = ~out[pairing.gt_rows]
        return cls(
            images=pairing.images,
            classes=pairing.classes,
            image=(pairing.dt_keys // pairing.classes).astype(np.int32),
            label=(pairing.dt_keys % pairing.classes).astype(np.int32),
            scores=found.scores[pairing.dt_rows],
            matched=matched,
            ignored=ignored,
            object_image=(pairing.gt_keys // pairing.classes).astype(np.int32),
            object_label=(pairing.gt_keys % pairing.classes).astype(np.int32),
            counts=counts,
        )

    def pack(self) -> dict[str, Any]:
        """Plain data for JSON: arrays as base64 of zlib of their little-endian bytes, beside dtype and shape."""
        arrays: dict[str, NDArray[Any]] = {
            "image": self.image, "label": self.label, "scores": self.scores,
            "object_image": self.object_image, "object_label": self.object_label,
        }  # fmt: skip
        for metric in METRICS:
            arrays[f"matched {metric}"] = self.matched[metric]
            arrays[f"ignored {metric}"] = self.ignored[metric]
            arrays[f"counts {metric}"] = self.counts[metric]
        packed = {name: _pack(values) for name, values in arrays.items()}
        return {"version": VERSION, "images": self.images, "classes": self.classes, "arrays": packed}

    @classmethod
    def unpack(cls, data: Mapping[str, Any]) -> PerImage:
        """What :meth:`pack` wrote.

        Raises:
            ValueError: it is of a newer release, or an array is missing, damaged, or does not fit the others; the
                message begins with its key.
        """
        if data["version"] != VERSION:
            raise ValueError(f"version is {data['version']}, this release reads {VERSION}")
        kinds = {**_OF_DETECTIONS, **_OF_OBJECTS}
        for name in kinds:
            if name not in data["arrays"]:
                raise ValueError(f"arrays.{name} is missing")
        arrays = {name: _unpack(name, data["arrays"][name], dtype) for name, dtype in kinds.items()}
        for group, first in ((_OF_DETECTIONS, "image"), (_OF_OBJECTS, "object_image")):
            for name in group:
                if len(arrays[name]) != len(arrays[first]):
                    raise ValueError(f"arrays.{name} has {len(arrays[name])} values, {first} has {len(arrays[first])}")
        for name, limit in (("image", "images"), ("label", "classes")):
            for values in (arrays[name], arrays[f"object_{name}"]):
                if len(values) and not 0 <= values.min() <= values.max() < data[limit]:
                    raise ValueError(f"arrays.{name} has numbers outside of 0 to {data[limit] - 1}")
        if not np.isfinite(arrays["scores"]).all():
            raise ValueError("arrays.scores has numbers that are not finite")
        columns: dict[str, Any] = {
            part: {metric: arrays[f"{part} {metric}"] for metric in METRICS}
            for part in ("matched", "ignored", "counts")
        }
        columns |= {name: arrays[name] for name in ("image", "label", "scores", "object_image", "object_label")}
        return cls(images=data["images"], classes=data["classes"], **columns)


def _match(evaluation: Evaluation, ious: list[Floats], out: Bools) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Bits of each detection, in pairing order; ``out`` bool [A] are the annotations that do not count."""
    pairing = evaluation.pairing
    matched, ignored = (np.zeros(len(pairing.dt_rows), np.uint16) for _ in range(2))
    for group, values in zip(pairing.groups, ious, strict=True):
        rows = pairing.gt_rows[group.gt]
        took = _greedy(np.asarray(values), out[rows], evaluation.crowd[rows])
        skipped = np.where(took >= 0, out[rows][took], False)
        matched[group.dt] = (((took >= 0) & ~skipped) * _BITS).sum(axis=1)
        ignored[group.dt] = (skipped * _BITS).sum(axis=1)
    return matched, ignored


def _greedy(ious: Floats, out: Bools, crowd: Bools) -> Ints:
    """int64 [D, 10], the object that each detection (best score first) takes at each IoU, or -1.

    An object that counts comes before any that does not, then the larger IoU, then the later object.
    """
    detections, objects = ious.shape
    took = np.full((detections, len(IOU_THRESHOLDS)), -1)
    free = np.ones((len(IOU_THRESHOLDS), objects), bool)
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    levels = np.arange(len(IOU_THRESHOLDS))
    for detection in range(detections):
        able = free & (ious[detection] >= least)
        worth = np.where(able, ious[detection] + np.where(out, 0.0, 2.0), -1.0)
        best = objects - 1 - worth[:, ::-1].argmax(axis=1)
        hit = able[levels, best]
        took[detection, hit] = best[hit]
        gone = hit & ~crowd[best]
        free[levels[gone], best[gone]] = False
    return took


def _pack(values: NDArray[Any]) -> dict[str, Any]:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    text = base64.b64encode(zlib.compress(little.tobytes(), 9)).decode("ascii")
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": text}


def _unpack(name: str, packed: Mapping[str, Any], dtype: str) -> NDArray[Any]:
    shape, kind = packed["shape"], np.dtype(dtype)
    if packed["dtype"] != dtype or len(shape) != 1:
        raise ValueError(f"arrays.{name} is {packed['dtype']} {shape}, must be {dtype} of one dimension")
    size = shape[0] * kind.itemsize
    unpacker = zlib.decompressobj()
    try:
        # No more than is asked for, and one byte to tell that there is more.
        raw = unpacker.decompress(base64.b64decode(packed["data"], validate=True), min(size + 1, sys.maxsize))
    except (ValueError, zlib.error):
        raise ValueError(f"arrays.{name}.data is no base64 of zlib") from None
    if len(raw) != size or not unpacker.eof:
        raise ValueError(f"arrays.{name}.data does not hold the {shape[0]} values that shape names")
    return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind)
