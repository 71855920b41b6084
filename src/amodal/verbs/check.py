"""``amodal check``: problems of an annotation file, then its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amodal.verbs import File, Folder

if TYPE_CHECKING:
    from amodal.data.check import Report


def check(ann: File, images: Folder | None = None, schema: str = "auto", limit: int = 20) -> int:
    """Problems of an annotation file with image and annotation ids, then statistics; exit code 1 if any is an error.

    Errors are faults that make an annotation unusable, and images that are missing, unreadable or of another size.
    Warnings are oddities: stored boxes or rates that do not fit the masks, visible pixels outside the amodal mask,
    duplicates, overlapping objects that all claim to be wholly visible, keys that only some annotations have, files of
    crowds, classes without instances. A file that is no JSON at all ends with exit code 2.

    Example:
        amodal check annotations.json --images pictures

    Args:
        ann: annotation file (JSON) in any known schema.
        images: folder of the images; every one is then decoded and compared with its annotated size.
        schema: schema of the file; "auto" recognises it by the keys of its annotations.
        limit: how many problems of each kind to print; 0 prints all.
    """
    from amodal.data.check import check as run

    report = run(ann, images, schema, progress=True)
    print("\n".join(_problem_lines(report, limit)))
    print()
    print("\n".join(report.statistics.lines()))
    return 1 if report.has_errors else 0


def _problem_lines(report: Report, limit: int) -> list[str]:
    from amodal.errors import counted

    lines: list[str] = []
    shown: dict[tuple[str, str], int] = {}
    order = {"error": 0, "warning": 1}
    for problem in sorted(report.problems, key=lambda p: (order[p.severity], p.kind)):
        group = (problem.severity, problem.kind)
        shown[group] = shown.get(group, 0) + 1
        if not limit or shown[group] <= limit:
            ids = [("image", problem.image_id), ("annotation", problem.annotation_id)]
            where = ", ".join(f"{name} {number}" for name, number in ids if number is not None)
            lines.append(": ".join(part for part in (problem.severity, where, problem.message) if part))
    for (severity, kind), count in shown.items():
        if limit and count > limit:
            lines.append(f"{severity}: {count - limit} more of the kind {kind!r} (--limit 0 prints all)")
    for verb, counts in (("left out", report.dropped), ("kept", report.noted)):
        for reason, count, examples in counts:
            lines.append(f"{verb}: {count} x {reason} (e.g. {', '.join(map(str, examples))})")
    errors = sum(count for (severity, _), count in shown.items() if severity == "error")
    warnings = sum(shown.values()) - errors
    return [*lines, f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"]
