"""``amodal evaluate``: metrics from files."""

from __future__ import annotations

from amodal.verbs import File


def evaluate(
    gt: File,
    results: File,
    out: File | None = None,
    trust_bbox: bool = False,
    vrsp_compat: bool = False,
    per_class: bool = False,
    schema: str = "auto",
) -> None:
    """Metrics of a results file against an annotation file: AP, AR, AP by occlusion, mIoU, in percent. Needs no model.

    An object's occlusion rate is the one that the annotation file stores, else it is computed from the masks.

    Example:
        amodal evaluate annotations.json predictions.json --out metrics.json

    Args:
        gt: annotation file (JSON) in any known schema.
        results: results file: a JSON list of objects with image_id, category_id, score, bbox (amodal xywh, pixels),
            segmentation (amodal RLE) and, where the system has it, visible_mask (RLE).
        out: JSON file for the numbers, beside the printed table; none of the two that are read.
        trust_bbox: take the truth's amodal boxes from the annotation file instead of from the masks.
        vrsp_compat: leave visible rates of the truth above 1 unclamped; such objects are then ignored, as in the
            evaluation that earlier work uses.
        per_class: numbers for each class, too.
        schema: schema of the annotation file; "auto" recognises it by the keys of its annotations.
    """
    import sys
    import warnings

    from amodal.data.told import tell
    from amodal.evaluation import prepare, table
    from amodal.evaluation.remarks import rate_remarks, unjudged
    from amodal.files import check_target, write_json

    if out is not None:
        check_target(out, gt, results)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        evaluation = prepare(gt, results, trust_bbox=trust_bbox, vrsp_compat=vrsp_compat, schema=schema)
    tell(evaluation.annotations)
    tell(evaluation.detections, unjudged(evaluation))
    metrics = evaluation.metrics(per_class)
    print(table(metrics))
    for text in (*(warning.message for warning in caught), *rate_remarks(evaluation.annotations)):
        print(f"warning: {text}", file=sys.stderr)
    if out is not None:
        write_json(out, metrics, indent=2)
