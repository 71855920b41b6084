"""A whole expansion prior: encoder E, flow solver S^f and memory bank behind two questions, search and solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amodal.errors import ConfigError, counted
from amodal.frames import resample, tight_boxes
from amodal.priors.precision import true_float32
from amodal.priors.types import GRID, Retrieved
from amodal.settings import PriorConfig

if TYPE_CHECKING:
    from amodal.priors.bank import Bank
    from amodal.priors.encoder import MaskEncoder
    from amodal.priors.flow import FlowNet


class Prior(nn.Module):
    """The K priors nearest to a visible mask, and the flow from that mask to an amodal one (Sec. 3.1).

    Encoder, solver and bank are fitted before the detector and frozen. They have a folder of their own, so they are no
    part of the detector's parameters or ``state_dict``; moving the detector moves them. Everything here runs without
    gradient and in float32, under autocast too.

    Attributes:
        config: the record of how it was fitted, for files and messages; no answer is computed from it.
        key_frame, key_aspect: what of it makes the keys.
        class_names: name of each 0-based label.
        category_ids: annotation-file id of each label.
        encoder: E.
        flow: S^f; None where ``config.flow`` is "nearest".
        bank: the slots.
        rerank_weight: weight of inconsistency in re-ranking, as fitted on the training data.
        data: digest of the annotations that it was fitted on; "" where unknown.
    """

    config: PriorConfig
    encoder: MaskEncoder
    flow: FlowNet | None
    bank: Bank

    def __init__(
        self,
        config: PriorConfig,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        encoder: MaskEncoder,
        flow: FlowNet | None,
        bank: Bank,
        rerank_weight: float = 0.0,
        data: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        self.key_frame, self.key_aspect = config.key_frame, config.key_aspect
        self.class_names = list(class_names)
        self.category_ids = [int(value) for value in category_ids]
        self.rerank_weight = float(rerank_weight)
        self.data = data
        self.bank = bank
        # Past nn.Module's registration: no parameter of the detector, no tensor of its checkpoint.
        object.__setattr__(self, "encoder", encoder.float().eval().requires_grad_(False))
        object.__setattr__(self, "flow", None if flow is None else flow.float().eval().requires_grad_(False))
        self._keys: dict[int, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return next(self.encoder.parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Prior:
        """Follows the detector to its device; parts stay float32."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.empty(0, device=self.device)).device
        if device != self.device:
            self.encoder.to(device)
            if self.flow is not None:
                self.flow.to(device)
            self.bank.to(device)
            self._keys = {}
        return self

    @torch.no_grad()
    def search(
        self,
        masks: Tensor,
        boxes: Tensor,
        labels: Tensor,
        k: int,
        *,
        exclude_annotations: Tensor | None = None,
        exclude_images: Tensor | None = None,
    ) -> Retrieved:
        """The ``k`` nearest slots of each object's class, d = |E(query) - E(key)| (Sec. 3.1, Search).

        Args:
            masks: float [R, 28, 28], visible masks (probabilities, cut at 0.5) in the frames ``boxes``; may be empty.
            boxes: float32 [R, 4], xyxy pixels; amodal boxes where ``config.key_frame`` is "amodal".
            labels: int64 [R], 0-based class.
            k: K.
            exclude_annotations: int64 [R], annotation id whose slots are left out for this object.
            exclude_images: int64 [R], image id whose slots are left out for this object.
        """
        # Codes in half precision would order near slots by their rounding.
        with torch.autocast(masks.device.type, enabled=False):
            codes = self.query_codes(masks.detach().float(), boxes.detach().float())
            return self.bank.search(
                codes,
                labels,
                k,
                keys=self.keys,
                exclude_annotations=exclude_annotations,
                exclude_images=exclude_images,
            )

    def keys(self, label: int) -> Tensor:
        """float32 [K_s, D], codes of the slots of a class; made by E at the first question and kept."""
        if label not in self._keys:
            self._keys[label] = self.encode(*self.bank.key_inputs(label, self.key_frame))
        return self._keys[label]

    @torch.no_grad()
    def query_codes(self, masks: Tensor, boxes: Tensor) -> Tensor:
        """float32 [R, D], the keys that visible masks [R, 28, 28] in the frames ``boxes`` are looked up with."""
        own = tight_boxes(masks, boxes)
        if self.key_frame == "visible":
            masks = resample(masks, boxes, own, GRID)
        return self.encode(masks >= 0.5, own[:, 2:] - own[:, :2])

    @torch.no_grad()
    def encode(self, masks: Tensor, sizes: Tensor) -> Tensor:
        """E's codes, with the log aspect ratio behind them where the key has it.

        Args:
            masks: bool [N, 28, 28], visible masks in the key frame.
            sizes: float32 [N, 2], width and height of their visible boxes in pixels.

        Returns:
            float32 [N, D], D = ``config.encoder``, one more with ``key_aspect``.
        """
        return encode(self.encoder, self.key_aspect, masks, sizes)

    @torch.no_grad()
    def solve(self, visible: Tensor, amodal: Tensor, *, halved: bool = True) -> Tensor:
        """T^f = S^f(M^v, M^a) (Eq. 3): where each cell of the amodal grid fetches from the visible part.

        Args:
            visible: float [N, 28, 28], M^{v,e} (cut at 0.5) in the frames B^a.
            amodal: float [N, 28, 28], 0 or 1, retrieved amodal masks.
            halved: give the flow on the 14 x 14 grid of the features.

        Returns:
            float32 [N, 2, 14, 14] (28 x 28 if not ``halved``), channels (x, y), backward, in units of half the frame's
            side; 0 where nothing is visible.
        """
        from amodal.priors.flow import halve, nearest_flow

        with true_float32(visible.device.type):
            # S^f was fitted to hard masks.
            seen = (visible.detach() >= 0.5).float()
            flow = nearest_flow(seen, amodal.float()) if self.flow is None else self.flow(seen, amodal.float())
            return halve(flow) if halved else flow

    def check_classes(self, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
        """Refuses a model whose classes are not the prior's, in the same order, with a :class:`ConfigError`."""
        refuse_other_classes(self, class_names, category_ids, "prior")


def refuse_other_classes(fitted: Any, names: Sequence[str], ids: Sequence[int], what: str) -> None:
    """Refuses a model whose classes are not those that a prior was ``fitted`` to, in the same order.

    Raises:
        ConfigError: they differ; names the first that does.
    """
    ours = list(zip(fitted.category_ids, fitted.class_names, strict=True))
    theirs = list(zip([int(value) for value in ids], names, strict=True))
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        counts = f"the {what} has {counted(len(ours), 'class')}, the model {len(theirs)}"
        raise ConfigError(f"{counts}; fit a {what} for these data")
    label = next(number for number, pair in enumerate(ours) if pair != theirs[number])
    name = "{1!r} (id {0})".format
    raise ConfigError(
        f"class {label + 1} is {name(*ours[label])} in the {what}, {name(*theirs[label])} in the model; "
        f"fit a {what} for these data"
    )


@torch.no_grad()
def encode(encoder: MaskEncoder, key_aspect: float, masks: Tensor, sizes: Tensor) -> Tensor:
    """Keys of visible masks; see :meth:`Prior.encode`."""
    codes: Tensor = encoder(masks.float())
    if not key_aspect:
        return codes
    width, height = sizes.clamp(min=1e-3).unbind(1)
    return torch.cat([codes, key_aspect * (width / height).log()[:, None]], dim=1)
