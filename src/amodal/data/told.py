"""What a verb tells of the files that it read: what it left out of them, and why."""

from __future__ import annotations

from collections.abc import Iterable

from amodal.data.problems import Count, shown_id
from amodal.data.results import ResultSet
from amodal.data.store import AnnotationSet
from amodal.launch import warn


def tell(read: AnnotationSet | ResultSet, more: Iterable[Count] = ()) -> None:
    """Says on stderr, a line for each reason, what was left out of a file, and why no object is in it if so.

    Of several processes the first one says it.

    Args:
        read: annotations or results as they were read.
        more: what the caller left out of them.
    """
    lines = [f"left out {one.times}: {one.reason} (e.g. {examples(one)})" for one in (*read.dropped, *more)]
    if isinstance(read, AnnotationSet) and len(read) and read.crowd.all():
        lines.append(f"no object: {crowds(read)}")
    for line in lines:
        warn(f"{read.path}: {line}")


def examples(count: Count) -> str:
    """The first few ids or names as text."""
    return ", ".join(str(shown_id(one)) for one in count.examples)


def crowds(data: AnnotationSet) -> str:
    """How many annotations are crowds, and what to do about it."""
    return (
        f"{int(data.crowd.sum())} of {len(data)} annotations are crowds (iscrowd 1), which nothing learns or counts; "
        "some tools write iscrowd 1 with every RLE mask: set it to 0 if they are objects"
    )
