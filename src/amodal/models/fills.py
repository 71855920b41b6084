"""First weights as Detectron draws them, by the names that it has for them; biases 0."""

from __future__ import annotations

from torch import nn


def msra_fill(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal, by the number of outputs: for convolutions that a ReLU follows."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def xavier_fill(layer: nn.Linear) -> None:
    """Uniform, by the number of inputs: for fully connected layers (Caffe2's Xavier fill)."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    nn.init.zeros_(layer.bias)
