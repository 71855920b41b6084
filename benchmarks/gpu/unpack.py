"""Makes checkpoint folders of what ``python -m benchmarks.gpu`` brought home.

python -m benchmarks.gpu.unpack RESULTS FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path


def main() -> None:
    """FOLDER/JOB holds logs and metrics, FOLDER/JOB/last is a checkpoint that ``amodal test`` and ``--init`` read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder with logs.zip and *.safetensors")
    parser.add_argument("folder", type=Path, help="where the run folders go")
    arguments = parser.parse_args()
    with zipfile.ZipFile(arguments.results / "logs.zip") as archive:
        archive.extractall(arguments.folder)
    for weights in sorted(arguments.results.glob("*.safetensors")):
        target = arguments.folder / weights.stem / "last" / "model.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, target)
        print(target.parent)


if __name__ == "__main__":
    main()
