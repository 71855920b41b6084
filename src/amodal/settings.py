"""Settings of single systems, and of what they fit to masks before they are trained. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from amodal.bounds import MANY, PRIORS, STEPS, WIDTH, above_zero, each, within
from amodal.errors import ConfigError, counted, require


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit to masks that precedes training; each kind of prior has a subclass. YAML: ``prior_fit``."""


@dataclass(frozen=True)
class PriorKind:
    """What is fitted to the training masks before a detector is trained, frozen, and kept beside its weights.

    Attributes:
        title: its name in messages, such as "expansion prior".
        settings: class of the settings of its fit.
        maker: fits, saves and loads it: a name in :data:`amodal.systems.MAKERS`, "module:NAME", or an object with the
            functions of :class:`amodal.models.branch.PriorMaker`.
    """

    title: str
    settings: type[FitConfig]
    maker: Any


@dataclass(frozen=True)
class MethodConfig:
    """Settings that belong to one system; a system that has any has a subclass."""

    @property
    def prior_kind(self) -> PriorKind | None:
        """The prior that the system as configured needs; None: it needs none."""
        return None

    def check_model(self, model: Any) -> None:
        """Refuses settings of the parts that all systems share (:class:`amodal.config.ModelConfig`) that can never
        serve these, with a :class:`ConfigError`."""
        return None

    def check_prior(self, fitted: FitConfig) -> None:
        """Refuses a prior of ``prior_kind`` fitted with ``fitted`` that can never serve these settings, with a
        :class:`ConfigError`."""
        return None


_FLOW_CELLS = 14  # a side, of the flows of a prior, which move the cells of a pooled map


@dataclass(frozen=True)
class ASNConfig(MethodConfig):
    """ASN with multi-level coding (Qi et al., CVPR 2019).

    Attributes:
        occluded_weight: weight of occluded regions in the occlusion loss, others have 1.
        occluded_above: hidden share above which an object is an occluded one.
    """

    occluded_weight: float = 8.0
    occluded_above: float = 0.15

    def __post_init__(self) -> None:
        above_zero(self, "model.method.", 1000, "occluded_weight")
        require(0 <= self.occluded_above < 1, "model.method.occluded_above", self.occluded_above, "in [0, 1)")

    def check_model(self, model: Any) -> None:
        size, boxes = model.mask_head.pool_size, model.box_head.pool_size
        rule = f"twice model.box_head.pool_size ({boxes}), as box maps are enlarged to mask maps"
        require(size == 2 * boxes, "model.mask_head.pool_size", size, rule)


@dataclass(frozen=True)
class BCNetConfig(MethodConfig):
    """BCNet (Ke et al., CVPR 2021).

    Attributes:
        class_specific: a mask of each class instead of one for all.
        boundary_weight: weight of both contour losses; 1 for what the released code computes, which adds each twice.
        occluder_weight: weight of the occluder's mask loss.
    """

    class_specific: bool = False
    boundary_weight: float = 0.5
    occluder_weight: float = 0.25

    def __post_init__(self) -> None:
        within(self, "model.method.", 0, 1000, "boundary_weight", "occluder_weight")


@dataclass(frozen=True)
class AISFormerConfig(MethodConfig):
    """AISFormer (Tran et al., BMVC 2022).

    Attributes:
        dropout: share that is dropped in training, of attention weights and after each layer.
        occluder_weight: weight of the occluder's mask loss.
        hidden_weight: weight of the hidden part's mask loss.
    """

    dropout: float = 0.1
    occluder_weight: float = 0.25
    hidden_weight: float = 0.25

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "model.method.dropout", self.dropout, "in [0, 1)")
        within(self, "model.method.", 0, 1000, "occluder_weight", "hidden_weight")

    def check_model(self, model: Any) -> None:
        width = model.mask_head.channels
        require(width % 4 == 0, "model.mask_head.channels", width, "a multiple of 4: two heads, rows and columns")


@dataclass(frozen=True)
class PGExpConfig(MethodConfig):
    """PGExp (Chen et al., AAAI 2023). The defaults are set #6 of Table 1; with ``rerank: occluder`` it is PGExp+.

    Attributes:
        box_expansion: how B^o becomes B^a (Sec. 3.2). "none": it stays; "plain": a box head without prior, on the maps
            of B^v and B^o; "prior": the prior-guided amodal box head.
        mask_expansion: how the amodal mask is predicted (Sec. 3.3). "plain": from F^e alone; "prior": flow-warped
            features; "masks": the retrieved amodal masks are concatenated instead (the paper's rejected variant).
        detects: which box RPN and box head look for; "visible" is the paper's other rejected variant and needs a box
            expansion and a prior with ``key_frame: visible``.
        k: K, priors retrieved for an object.
        aggregate: "concat": K maps concatenated in order of distance and squeezed (paper); "attention": a weighted mean
            over the priors whose weights see distance and consistency, any K at test.
        rerank: "occluder" (PGExp+) keeps the K of ``candidates`` priors that agree best with what else is seen.
        candidates: priors retrieved before re-ranking, at least ``k``.
        rerank_weight: weight of a candidate's inconsistency beside its relative distance; null: the prior's fitted one.
        train_boxes: B^o in training: the sampled proposal, or the box head's "decoded" box for the object's class.
        reference: box that the deltas of the box expansion refer to: B^v ("visible", paper), B^o ("original"), or
            "mixed": each of its edges is a weighted mean of those of B^o, B^v and, with a prior, the box of the median
            T^r_k(B^v), with weights that the head gives, which then also sees in numbers where these boxes lie.
        delta_weights: Faster R-CNN delta weights (x, y, w, h) of the box expansion's loss.
        box_channels: width of the box expansion's fully connected layers.
        dropout: share of the box expansion's features that is dropped in training, from 0 to below 1 (paper: none).
        exclude: priors that an object in training does not retrieve: "none" (paper), those made from the object itself
            ("instance"), or from any object of its image ("image").
        warmup_steps: training steps in which the mask expansion works in jittered true boxes, since B^a is poor.
        warmup_jitter: largest shift and change of size of these boxes, as a share of the side.
        checkpoint: recompute the warped maps in the backward pass instead of keeping K of them (less memory).
    """

    box_expansion: Literal["none", "plain", "prior"] = "prior"
    mask_expansion: Literal["plain", "prior", "masks"] = "prior"
    detects: Literal["amodal", "visible"] = "amodal"
    k: int = 8
    aggregate: Literal["concat", "attention"] = "concat"
    rerank: Literal["none", "occluder"] = "none"
    candidates: int = 32
    rerank_weight: float | None = None
    train_boxes: Literal["proposal", "decoded"] = "proposal"
    reference: Literal["visible", "original", "mixed"] = "visible"
    delta_weights: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0])
    box_channels: int = 1024
    dropout: float = 0.0
    exclude: Literal["none", "instance", "image"] = "none"
    warmup_steps: int = 0
    warmup_jitter: float = 0.1
    checkpoint: bool = False

    def __post_init__(self) -> None:
        within(self, "model.method.", 1, PRIORS, "k", "candidates")
        enough = self.rerank == "none" or self.candidates >= self.k
        require(enough, "model.method.candidates", self.candidates, f">= model.method.k ({self.k})")
        weight = self.rerank_weight
        ok = weight is None or 0 <= weight <= MANY
        require(ok, "model.method.rerank_weight", weight, f"0 to {MANY}, or null")
        each(self, "model.method.", "delta_weights", 0.001, 1000, count=4)
        within(self, "model.method.", 1, WIDTH, "box_channels")
        within(self, "model.method.", 0, STEPS, "warmup_steps")
        require(0 <= self.warmup_jitter < 0.5, "model.method.warmup_jitter", self.warmup_jitter, "in [0, 0.5)")
        require(0 <= self.dropout < 1, "model.method.dropout", self.dropout, "in [0, 1)")
        needs = self.detects == "visible" and self.box_expansion == "none"
        require(not needs, "model.method.box_expansion", self.box_expansion, "plain or prior where detects is visible")

    @property
    def prior_kind(self) -> PriorKind | None:
        return EXPANSION_PRIOR if self.box_expansion == "prior" or self.mask_expansion != "plain" else None

    def check_model(self, model: Any) -> None:
        size = model.mask_head.pool_size
        ok = self.prior_kind is None or size == _FLOW_CELLS
        require(ok, "model.mask_head.pool_size", size, f"{_FLOW_CELLS} for a system with a prior")

    def check_prior(self, fitted: FitConfig) -> None:
        assert isinstance(fitted, PriorConfig)
        key, wanted = ("candidates", self.candidates) if self.rerank != "none" else ("k", self.k)
        if wanted > fitted.slots:
            raise ConfigError(f"model.method.{key} is {wanted}, the prior has {counted(fitted.slots, 'slot')} a class")
        if self.detects == "visible" and fitted.key_frame != "visible":
            raise ConfigError("model.method.detects is 'visible', which needs a prior fitted with key_frame 'visible'")
        asked, fitted_for = (self.k, self.candidates), (fitted.k, fitted.candidates)
        if self.rerank != "none" and self.rerank_weight is None and asked != fitted_for:
            raise ConfigError(
                f"model.method keeps {asked[0]} of {asked[1]} candidates, the prior's re-ranking weight was fitted for"
                f" {fitted_for[0]} of {fitted_for[1]}: fit it with prior_fit.k and prior_fit.candidates (prior fit --k"
                f" {asked[0]} --candidates {asked[1]}), or give model.method.rerank_weight"
            )


@dataclass(frozen=True)
class PriorConfig(FitConfig):
    """Fitting of an expansion prior (Sec. 3.1): encoder E, flow solver S^f and memory bank, from masks alone.

    Attributes:
        slots: K_s, slots of a class.
        encoder: length of E's code; 392 (KINS) or 128 (D2SA, COCOA cls).
        fit_on: masks that E learns to reconstruct; "amodal" alone as earlier work has it.
        encoder_steps: optimiser steps of E.
        flow: S^f; "network", or "nearest": the closed form, the offset to the nearest visible block of 2 x 2 cells.
        flow_steps: optimiser steps of S^f.
        neighbour_share: share of S^f's training pairs whose amodal mask is a retrieved neighbour's, as in use.
        key_frame: frame of the masks that are compared: the amodal box (paper) or the visible mask's own box.
        key_aspect: weight of the visible box's log aspect ratio in the key; 0: not part of it.
        min_occlusion: objects with a smaller hidden share stay out of the bank alone, not of the fits.
        rotate: augment classes short of ``slots`` by any rotation (objects seen from above).
        k: priors that re-ranking keeps, when its weight is fitted and the prior is judged.
        candidates: priors that it keeps them of.
        seed: of fitting, clustering and augmentation.
    """

    slots: int = 1000
    encoder: Literal[392, 128] = 392
    fit_on: Literal["both", "amodal"] = "both"
    encoder_steps: int = 2000
    flow: Literal["network", "nearest"] = "network"
    flow_steps: int = 150
    neighbour_share: float = 0.25
    key_frame: Literal["amodal", "visible"] = "amodal"
    key_aspect: float = 0.0
    min_occlusion: float = 0.0
    rotate: bool = False
    k: int = 8
    candidates: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, "", 1, MANY, "slots")
        within(self, "", 1, STEPS, "encoder_steps", "flow_steps")
        within(self, "", 0, 1, "neighbour_share")
        within(self, "", 0, 1000, "key_aspect")
        require(0 <= self.min_occlusion < 1, "min_occlusion", self.min_occlusion, "in [0, 1)")
        within(self, "", 1, PRIORS, "k", "candidates")
        require(self.candidates >= self.k, "candidates", self.candidates, f">= k ({self.k})")
        require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")


EXPANSION_PRIOR = PriorKind("expansion prior", PriorConfig, "expansion")


@dataclass(frozen=True)
class CodebookConfig(FitConfig):
    """Fitting of a shape codebook (Xiao et al., AAAI 2021): auto-encoder and codes, from amodal masks alone.

    Attributes:
        slots: most codes of a class; where its masks and their mirror images are more, the centres of as many clusters.
        encoder: length of a code; 392 (KINS) or 128 (D2SA, COCOA cls).
        encoder_steps: optimiser steps of the auto-encoder.
        seed: of fitting and clustering.
    """

    slots: int = 1024
    encoder: Literal[392, 128] = 392
    encoder_steps: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, "", 1, MANY, "slots")
        within(self, "", 1, STEPS, "encoder_steps")
        require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")


SHAPE_CODEBOOK = PriorKind("shape codebook", CodebookConfig, "codebook")


@dataclass(frozen=True)
class VRSPConfig(MethodConfig):
    """VRSP (Xiao et al., AAAI 2021). The defaults are the published model's on D2SA and COCOA cls.

    Attributes:
        k: K, shapes retrieved for an object.
        matching: weights of feature matching after the last convolution and after the deconvolution.
        reclass_weight: weight of the re-classification loss.
        reclass_channels: width of the re-classification's two fully connected layers.
        guided_weight: weight of the losses of the pass that attends to the true masks.
        rescore: whether scores are changed before NMS by how well a shape of the codebook fits.
        rescore_class: whether they are changed by the re-classification, too (off on KINS).
        alpha: at least 2; how little is left of the score of a mask that no shape fits; 3 on KINS.
        follow: "paper", or "code": queries are the raw logits, so is the attention of the re-classification, and the
            visible mask of the guided pass is trained on the amodal one.
    """

    k: int = 16
    matching: list[float] = field(default_factory=lambda: [0.01, 0.05])
    reclass_weight: float = 0.25
    reclass_channels: int = 1024
    guided_weight: float = 1.0
    rescore: bool = True
    rescore_class: bool = True
    alpha: float = 2.0
    follow: Literal["paper", "code"] = "paper"

    def __post_init__(self) -> None:
        within(self, "model.method.", 1, PRIORS, "k")
        each(self, "model.method.", "matching", 0, 1000, 2)
        within(self, "model.method.", 0, 1000, "reclass_weight", "guided_weight")
        within(self, "model.method.", 1, WIDTH, "reclass_channels")
        within(self, "model.method.", 2, 1000, "alpha")

    @property
    def prior_kind(self) -> PriorKind:
        return SHAPE_CODEBOOK

    def check_model(self, model: Any) -> None:
        size = model.mask_head.pool_size
        require(size == _FLOW_CELLS, "model.mask_head.pool_size", size, f"{_FLOW_CELLS} for a system with a prior")
