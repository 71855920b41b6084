"""The weights that ship answer as they did when they were made, to the last bit where the machine is the same."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import amodal
from amodal.data.scenes.dataset import write_dataset
from amodal.prediction import Prediction

RECORD = Path(__file__).with_name("recorded") / "nano-scenes-v1.json"
FIELDS = ("boxes", "scores", "labels", "amodal_probs", "visible_probs", "frames")


def machine() -> dict[str, str]:
    """What decides the last bits: other processors and releases add up in another order."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.partition("+")[0],
        "numpy": np.__version__,
    }


def digest(found: list[Prediction]) -> str:
    total = hashlib.sha256()
    for prediction in found:
        for name in FIELDS:
            total.update(np.ascontiguousarray(getattr(prediction, name).numpy()).tobytes())
    return total.hexdigest()


def record(folder: Path) -> dict[str, Any]:
    """What is kept: a digest of everything, and numbers to compare where the machine is another."""
    scenes = write_dataset(folder / "scenes", images=6, seed=77)
    model = amodal.load("nano-scenes-v1", "cpu")
    found = model.predict(sorted((scenes.parent / "images").iterdir()), threshold=0.05)
    results = [prediction.to_coco(number) for number, prediction in enumerate(found, start=1)]
    return {
        "machine": machine(),
        "digest": digest(found),
        "results": hashlib.sha256(json.dumps(results).encode()).hexdigest(),
        "scores": [round(float(score), 6) for prediction in found for score in prediction.scores],
        "boxes": [[round(float(edge), 3) for edge in box] for prediction in found for box in prediction.boxes],
        "areas": [round(float(probs.sum()), 2) for prediction in found for probs in prediction.amodal_probs],
    }


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return record(tmp_path_factory.mktemp("recorded"))
    finally:
        torch.set_num_threads(threads)


def test_predictions_are_close_on_any_machine(now: dict[str, Any]) -> None:
    then = json.loads(RECORD.read_text())
    assert len(now["scores"]) == len(then["scores"])
    np.testing.assert_allclose(now["scores"], then["scores"], atol=1e-4)
    np.testing.assert_allclose(now["boxes"], then["boxes"], atol=0.05)
    np.testing.assert_allclose(now["areas"], then["areas"], rtol=1e-2, atol=0.5)


def test_predictions_are_equal_to_the_last_bit(now: dict[str, Any]) -> None:
    then = json.loads(RECORD.read_text())
    if now["machine"] != then["machine"]:
        pytest.skip(f"recorded on {then['machine']}, this is {now['machine']}")
    assert now["digest"] == then["digest"]
    assert now["results"] == then["results"]
