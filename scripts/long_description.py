"""What a package index shows: the README with links that lead somewhere from there, and the project's addresses.

An index knows no files beside the README and lets no picture be embedded. So with the address of the repository, given
to the build as ``AMODAL_REPOSITORY``, relative links and pictures become absolute ones, to the files of this version's
tag; without it links become their text and pictures are left out, and no address is made up.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!\w+:)([^)]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")
_PICTURE_AND_CAPTION = re.compile(_PICTURE.pattern + r"\n+(?:\*[^\n]*\*\n+)?")


def long_description(readme: str, repository: str | None, version: str) -> str:
    """The README (Markdown) as it can be read away from the repository.

    Args:
        readme: its text, with links relative to the repository.
        repository: address of the repository's page; None: not known.
        version: of the package; its tag is v and this.
    """
    if not repository:
        return _LINK.sub(r"\1", _PICTURE_AND_CAPTION.sub("", readme))
    base, tag = repository.rstrip("/"), f"v{version}"
    text = _PICTURE.sub(rf"![\1]({base}/raw/{tag}/\2)", readme)
    return _LINK.sub(rf"[\1]({base}/blob/{tag}/\2)", text)


def addresses(repository: str | None, version: str) -> dict[str, str]:
    """The project's addresses by name, as an index lists them; none where the repository's is not known."""
    if not repository:
        return {}
    base = repository.rstrip("/")
    return {
        "Homepage": base,
        "Source": base,
        "Documentation": f"{base}/tree/v{version}/docs",
        "Issues": f"{base}/issues",
    }


class LongDescription(MetadataHookInterface):  # type: ignore[misc, unused-ignore]
    """Gives the build its long description and addresses."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fills in ``readme`` and ``urls``."""
        root = Path(self.root)
        found = re.search(r'__version__ = "([^"]+)"', (root / "src/amodal/version.py").read_text(encoding="utf-8"))
        assert found is not None, "src/amodal/version.py names no version"
        repository = os.environ.get("AMODAL_REPOSITORY")
        if repository and not re.match(r"https?://\S+$", repository):
            raise ValueError(f"AMODAL_REPOSITORY is {repository!r}, must be the https address of the repository")
        text = long_description((root / "README.md").read_text(encoding="utf-8"), repository, found[1])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = addresses(repository, found[1])
