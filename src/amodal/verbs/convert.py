"""``amodal convert``: any known annotation schema to canonical JSON."""

from __future__ import annotations

from amodal.verbs import File


def convert(src: File, out: File, schema: str = "auto") -> None:
    """Converts annotations to canonical COCO JSON and says what was dropped and why.

    Boxes and areas of the result are computed from the masks. An occlusion rate that the source stores stays as it is,
    because metrics go by it; where there is none it is computed from the masks.

    Example:
        amodal convert update_train_2020.json kins_train.json

    Args:
        src: annotation file of any known schema (JSON).
        out: file to write (JSON); another one than SRC.
        schema: schema of the source; "auto" recognises it by the keys of its annotations.
    """
    from amodal.data import canonical
    from amodal.data.reader import load
    from amodal.data.told import examples, tell
    from amodal.errors import counted
    from amodal.files import check_target

    check_target(out, src)
    annotations = load(src, schema=schema, cache=False)
    tell(annotations)
    canonical.write(annotations, out)
    kept = f"{counted(len(annotations.image_ids), 'image')}, {counted(len(annotations), 'annotation')} kept"
    print(f"{src}: {annotations.schema}, {kept}")
    for count in annotations.noted:
        print(f"kept {count.times}: {count.reason} (e.g. {examples(count)})")
    if not annotations.dropped:
        print("nothing dropped")
    print(f"wrote {out}")
