"""Pages: Markdown written by hand, with tables between markers that are rewritten from runs.

A block begins with ``<!-- KIND: EXPERIMENT SPLIT -->`` and ends with ``<!-- end -->``. Kinds are ``table``, ``compare``
and ``levels``, and ``times``, which has no split. What stands outside of the blocks is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from amodal.errors import ConfigError, DataError, nearest
from amodal.files import write_text
from amodal.reproduce.experiment import Experiment
from amodal.reproduce.tables import Entry, difference_table, differences, level_table, main_table, time_table

Writer = Callable[[list[str]], "str | None"]
_BLOCK = re.compile(r"(<!-- (?P<kind>[\w-]+):(?P<words>[^\n]*?) -->\n)(?P<text>.*?)(<!-- end -->)", flags=re.S)


def rewrite(page: Path, writers: Mapping[str, Writer]) -> int:
    """Fills the blocks of a page, which is written whole or not at all.

    Args:
        page: the file.
        writers: kind -> from the words behind it to the block's new text, or None to leave the block as it is.

    Returns:
        How many blocks were filled.

    Raises:
        DataError: the page is missing, or a block has no end.
    """
    try:
        old = page.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(error.strerror or "cannot be read", file=page) from None
    filled = 0

    def fill(found: re.Match[str]) -> str:
        nonlocal filled
        # Another block begins inside, so the end that was found is that one's.
        if "<!-- " in found["text"]:
            raise DataError(f"the block '{found['kind']}:{found['words']}' has no <!-- end -->", file=page)
        text = writers[found["kind"]](found["words"].split()) if found["kind"] in writers else None
        if text is None:
            return found[0]
        filled += 1
        return f"{found[1]}{text.strip()}\n{found[5]}"

    new = _BLOCK.sub(fill, old)
    if new != old:
        write_text(page, new)
    return filled


def fill_page(page: Path, experiment: Experiment, splits: Mapping[str, str], entries: Sequence[Entry]) -> int:
    """Fills the blocks of a page that name ``experiment``; blocks of others are left as they are.

    Args:
        page: the file.
        experiment: whose rows they are.
        splits: name -> digest.
        entries: the rows.

    Raises:
        ConfigError: a block names an unknown split.
    """

    def writer(make: Callable[[str, str], str]) -> Writer:
        def write(words: list[str]) -> str | None:
            if not words or words[0] != experiment.name:
                return None
            split = " ".join(words[1:])
            if split not in splits:
                raise ConfigError(f"{page}: no split {split!r} in {experiment.name}{nearest(split, list(splits))}")
            return make(split, splits[split])

        return write

    def compared(split: str, digest: str) -> str:
        if experiment.compare is None:
            raise ConfigError(f"{page}: {experiment.name} compares nothing")
        other, draws = experiment.compare.row, experiment.compare.draws
        found = differences(entries, other, digest, experiment.columns, draws)
        return difference_table(entries, other, split, experiment.columns, found)

    def times(words: list[str]) -> str | None:
        return time_table(entries) if words == [experiment.name] else None

    writers: dict[str, Writer] = {
        "table": writer(lambda split, digest: main_table(entries, split, digest, experiment.columns)),
        "compare": writer(compared),
        "levels": writer(lambda split, digest: level_table(entries, split, digest)),
        "times": times,
    }
    return rewrite(page, writers)
