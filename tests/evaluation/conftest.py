"""Random crowded scenes as files, and a slow evaluator that shares no code with the package."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 40, 48
CATEGORIES = [{"id": 2, "name": "cup"}, {"id": 3, "name": "car"}, {"id": 7, "name": "key"}, {"id": 9, "name": "fish"}]


def to_rle(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def to_mask(rle):
    return coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def xywh(mask):
    if not mask.any():
        return [0.0, 0.0, 0.0, 0.0]
    y, x = np.nonzero(mask)
    return [float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1)]


def ellipse(cx, cy, rx, ry):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def annotation(number, image, category, amodal, visible, **more):
    area = int(amodal.sum())
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": to_rle(amodal),
        "bbox": xywh(amodal),
        "area": area,
        "visible_mask": to_rle(visible),
        "visible_bbox": xywh(visible),
        "occlude_rate": 1 - int((visible & amodal).sum()) / area,
        **more,
    }


def detection(image, category, score, amodal, visible):
    found = {"image_id": image, "category_id": category, "score": score}
    found |= {"segmentation": to_rle(amodal), "bbox": xywh(amodal)}
    return found | {"visible_mask": to_rle(visible), "visible_bbox": xywh(visible)}


def draw_scene(seed, images=6, crowds=True, many=False, steps=20, unknown=False):
    """A COCO dictionary and results: overlapping ellipses, crowds, score ties, empty masks, classes without truth."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(11, 11 + images):
        shapes = []
        for _ in range(rng.integers(0, 8)):
            shape = (rng.uniform(4, 44), rng.uniform(4, 36), rng.uniform(3, 12), rng.uniform(3, 12))
            shapes.append((int(rng.choice([2, 3, 7], p=[0.6, 0.3, 0.1])), shape, ellipse(*shape)))
        for place, (category, shape, amodal) in enumerate(shapes):
            front = np.any([m for _, _, m in shapes[place + 1 :]] or [np.zeros_like(amodal)], axis=0)
            more = {"iscrowd": int(crowds and rng.random() < 0.15)}
            if unknown and rng.random() < 0.2:
                more["amodal_known"] = False
            annotations.append(annotation(len(annotations) + 5, image, category, amodal, amodal & ~front, **more))
            for _ in range(rng.integers(0, 4)):
                guess = ellipse(*(np.array(shape) * rng.normal(1, 0.12, 4)))
                seen = guess & ~front if rng.random() < 0.7 else guess
                wrong = int(rng.choice([category, category, category, 2, 9]))
                results.append(detection(image, wrong, round(rng.random() * steps) / steps, guess, seen))
        for _ in range(rng.integers(0, 4) + (130 if many and image == 12 else 0)):
            guess = ellipse(*rng.uniform(4, 40, 2), *rng.uniform(2, 10, 2)) & (rng.random() < 0.9)
            seen = guess & (rng.random(guess.shape) < rng.uniform(0.3, 1.3))
            wrong = int(rng.choice([2, 3, 9]))
            results.append(detection(image, wrong, round(rng.random() * steps) / steps, guess, seen))
    infos = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(11, 11 + images)]
    return {"images": infos, "annotations": annotations, "categories": CATEGORIES}, results


def slow_ap(truth, results, part="amodal", level=None, own_rate=False, counts=lambda rate: True):
    """AP in percent after the text of method.md, one detection, one threshold, one pixel grid at a time.

    ``level``: objects with a visible rate above it are ignored. ``own_rate``: unmatched detections that predict a rate
    above it are ignored too. ``counts``: which visible rates count, for other rules. Independent of the package: dense
    masks, dictionaries and loops.
    """
    mask_key, box = ("visible_mask", False) if part == "visible" else ("segmentation", part == "box")
    per_class = []
    for category in sorted({c["id"] for c in truth["categories"]}):
        objects, found = {}, []
        for ann in (a for a in truth["annotations"] if a["category_id"] == category):
            amodal, visible = to_mask(ann["segmentation"]), to_mask(ann["visible_mask"])
            rate = 1 - ann["occlude_rate"] if "occlude_rate" in ann else min(1.0, visible.sum() / amodal.sum())
            unknown = part != "visible" and not ann.get("amodal_known", True)
            ignored = bool(ann["iscrowd"]) or unknown or (level is not None and rate > level) or not counts(rate)
            if part == "visible" and not visible.any():
                ignored = True
            shape = xywh(amodal) if box else to_mask(ann[mask_key])
            objects.setdefault(ann["image_id"], []).append((shape, ignored, bool(ann["iscrowd"]), ann["id"]))
        for listed in objects.values():
            listed.sort(key=lambda item: item[3])
        for image in sorted(i["id"] for i in truth["images"]):
            own = [r for r in results if r["image_id"] == image and r["category_id"] == category]
            found += [(image, r) for r in sorted(own, key=lambda r: -r["score"])[:100]]
        total = sum(not ignored for listed in objects.values() for _, ignored, _, _ in listed)
        if total == 0:
            continue
        aps = [
            slow_class_ap(objects, found, total, t, mask_key, box, level if own_rate else None)
            for t in np.linspace(0.5, 0.95, 10)
        ]
        per_class.append(sum(aps) / len(aps))
    return 100 * sum(per_class) / len(per_class) if per_class else None


def slow_class_ap(objects, found, total, threshold, mask_key, box, level):
    taken, outcomes = set(), []
    for image, det in found:
        shape = det["bbox"] if box else to_mask(det[mask_key])
        best, best_iou = None, threshold - 1e-12
        for pick_ignored in (False, True):
            if best is not None:
                break
            for place, (other, ignored, crowd, _) in enumerate(objects.get(image, [])):
                if ignored is not pick_ignored or ((image, place) in taken and not crowd):
                    continue
                iou = (slow_box_iou if box else slow_mask_iou)(shape, other, crowd)
                if iou >= best_iou:
                    best, best_iou = place, iou
        if best is not None:
            taken.add((image, best))
            verdict = "ignored" if objects[image][best][1] else "hit"
        else:
            verdict = "ignored" if level is not None and slow_rate(det) > level else "miss"
        outcomes.append((det["score"], verdict))
    outcomes.sort(key=lambda item: -item[0])
    hits = misses = 0
    points = []
    for _, verdict in outcomes:
        hits += verdict == "hit"
        misses += verdict == "miss"
        points.append((hits / total, hits / (hits + misses) if hits + misses else 0.0))
    recalls = np.linspace(0, 1, 101)
    return sum(max((p for r, p in points if r >= wanted), default=0.0) for wanted in recalls) / 101


def slow_miou(truth, results):
    """mIoU and mIoU-occ in percent, each object and detection a dense mask."""
    ious, hidden = [], []
    taken = set()
    best = {}
    for place, det in sorted(enumerate(results), key=lambda item: -item[1]["score"]):
        options = []
        for ann in truth["annotations"]:
            same = (ann["image_id"], ann["category_id"]) == (det["image_id"], det["category_id"])
            if det["score"] < 0.5 or not same or ann["iscrowd"] or ann["id"] in taken:
                continue
            iou = slow_mask_iou(to_mask(det["segmentation"]), to_mask(ann["segmentation"]), False)
            options.append((iou, -ann["id"]))
        if options and max(options)[0] >= 0.5:
            iou, negative = max(options)
            taken.add(-negative)
            best[-negative] = (iou, place)
    for ann in (a for a in truth["annotations"] if not a["iscrowd"]):
        iou, place = best.get(ann["id"], (0.0, None))
        ious.append(iou)
        behind = to_mask(ann["segmentation"]) & ~to_mask(ann["visible_mask"])
        if ann["occlude_rate"] >= 0.15 and behind.any():
            found = np.zeros_like(behind)
            if place is not None:
                found = to_mask(results[place]["segmentation"]) & ~to_mask(results[place]["visible_mask"])
            hidden.append((behind & found).sum() / (behind | found).sum())
    return 100 * np.mean(ious), 100 * np.mean(hidden)


def slow_rate(det):
    amodal, visible = to_mask(det["segmentation"]), to_mask(det["visible_mask"])
    return (amodal & visible).sum() / amodal.sum() if amodal.any() else 0.0


def slow_mask_iou(found, other, crowd):
    union = found.sum() if crowd else (found | other).sum()
    return (found & other).sum() / union if union else 0.0


def slow_box_iou(found, other, crowd):
    w = min(found[0] + found[2], other[0] + other[2]) - max(found[0], other[0])
    h = min(found[1] + found[3], other[1] + other[3]) - max(found[1], other[1])
    inter = max(w, 0) * max(h, 0)
    union = found[2] * found[3] + (0 if crowd else other[2] * other[3] - inter)
    return inter / union if union else 0.0


class Tools:
    """What tests of this folder share (their modules cannot import each other)."""

    height, width = HEIGHT, WIDTH
    to_rle, to_mask, xywh = staticmethod(to_rle), staticmethod(to_mask), staticmethod(xywh)
    annotation, detection = staticmethod(annotation), staticmethod(detection)
    draw_scene, slow_ap, slow_miou = staticmethod(draw_scene), staticmethod(slow_ap), staticmethod(slow_miou)

    def __init__(self, folder):
        self.folder = folder
        self.files = 0

    def write(self, data):
        """The path of a new JSON file that holds ``data``."""
        self.files += 1
        path = self.folder / f"{self.files}.json"
        path.write_text(json.dumps(data))
        return path

    def pycocotools(self, truth, results, part):
        """AP, AP50, AP75, AR100 in percent (None: undefined) from pycocotools itself."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        key = "visible_mask" if part == "visible" else "segmentation"
        data = json.loads(json.dumps(truth))
        data["annotations"] = [a | {"segmentation": a[key]} for a in data["annotations"]]
        # An empty mask cannot be found; ours ignores it, and nothing else of it shows than that it is no miss.
        data["annotations"] = [a for a in data["annotations"] if to_mask(a["segmentation"]).any()]
        found = [{k: r[k] for k in ("image_id", "category_id", "score")} | {"segmentation": r[key]} for r in results]
        if part == "box":
            found = [{k: r[k] for k in ("image_id", "category_id", "score", "bbox")} for r in results]
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO()
            gt.dataset = data
            gt.createIndex()
            dt = gt.loadRes(found) if found else COCO()
            run = COCOeval(gt, dt, "bbox" if part == "box" else "segm")
            run.evaluate()
            run.accumulate()
            run.summarize()
        stats = [run.stats[0], run.stats[1], run.stats[2], run.stats[8]]
        return {k: None if v < 0 else 100 * v for k, v in zip(("AP", "AP50", "AP75", "AR100"), stats, strict=True)}


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path)
