"""Makes the weights that ship from a finished run: float16 tensors, metrics of those very tensors, a model card.

python scripts/ship_weights.py runs/scenes-v1/pgexp/last src/amodal/weights/nano-scenes-v1 --scenes 200 --seed 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import amodal
from amodal.checkpoint import save_model
from amodal.data.scenes.dataset import write_dataset
from amodal.score import run_test

TRAIN = """--data.train runs/scenes-v1/train/annotations.json \\
    --data.train_images runs/scenes-v1/train/images --data.val runs/scenes-v1/val/annotations.json \\
    --data.val_images runs/scenes-v1/val/images"""
COMMANDS = """
amodal scenes runs/scenes-v1/train --images 2000 --seed 1
amodal scenes runs/scenes-v1/val --images 100 --seed 2
amodal train configs/pgexp/scenes-v1-base.yaml --out runs/scenes-v1/first {train}
amodal train configs/pgexp/scenes-v1-base.yaml --out runs/scenes-v1/base {train} \\
    --init runs/scenes-v1/first/last --steps 1200 --model.box_head.positive_fraction 0.125 --optim.milestones "[]"
amodal prior fit runs/scenes-v1/train/annotations.json runs/scenes-v1/prior --val runs/scenes-v1/val/annotations.json
amodal train configs/pgexp/scenes-v1.yaml --out runs/scenes-v1/pgexp {train} \\
    --init runs/scenes-v1/base/last --prior runs/scenes-v1/prior
python scripts/ship_weights.py {source} {target} --scenes {scenes} --seed {seed}
"""


def main() -> None:
    """Writes the checkpoint, measures it on drawn scenes of a fresh seed, and writes it again with that card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="checkpoint folder of the run")
    parser.add_argument("target", type=Path, help="folder inside the package")
    parser.add_argument("--scenes", type=int, default=200, help="scenes to measure on")
    parser.add_argument("--seed", type=int, default=3, help="seed of these scenes; neither training nor tuning used it")
    arguments = parser.parse_args()
    model = amodal.load(arguments.source, device="cpu")
    save_model(model, arguments.target, half=True)
    out = Path("runs/scenes-v1") / f"test-{arguments.seed}"
    scenes = write_dataset(out / "scenes", images=arguments.scenes, seed=arguments.seed, overwrite=True, progress=True)
    metrics = run_test(str(arguments.target), scenes, scenes.parent / "images", out, device="cpu")
    commands = COMMANDS.format(
        train=TRAIN, source=arguments.source, target=arguments.target, scenes=arguments.scenes, seed=arguments.seed
    )
    card = {
        "metrics": metrics,
        "data": "2000 drawn scenes (scenes-v1, 8 classes, 256 px, seed 1)",
        "notes": "drawn scenes only: it knows nothing of photographs. The metrics are on drawn scenes of seed"
        f" {arguments.seed}, measured with these float16 weights. Made by:\n\n```sh{commands}```",
    }
    save_model(model, arguments.target, card, half=True)


if __name__ == "__main__":
    main()
