"""Saving, loading and sharing through the Hugging Face Hub, in the project's own checkpoint format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin, snapshot_download

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN


class HubMixin(ModelHubMixin):  # type: ignore[misc, unused-ignore]
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` for a detector, over checkpoint folders."""

    def _save_pretrained(self, save_directory: Path) -> None:
        from amodal.train.checkpoints import save_model

        # The mixin would add a config.json of its own beside config.yaml.
        self._hub_mixin_config = None
        save_model(self, save_directory)  # type: ignore[arg-type]

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        device: str = "cpu",
        **_: Any,
    ) -> AmodalRCNN:
        from amodal.train.checkpoints import CARD, CONFIG, WEIGHTS, load_model

        if Path(model_id).is_dir():
            return load_model(model_id, device)
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
        )
        return load_model(folder, device)
