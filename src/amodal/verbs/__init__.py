"""The verbs of the command line: one typed function each, whose signature and docstring are its arguments and help."""

from pathlib import Path
from typing import Annotated

File = Annotated[Path, "FILE"]
"""A file, as help writes it."""

Folder = Annotated[Path, "DIR"]
"""A folder, as help writes it."""
