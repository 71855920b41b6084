"""Saving, loading and sharing through the Hugging Face Hub, in the project's own checkpoint format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str = "cpu",
    ) -> AmodalRCNN:
        """The detector of a checkpoint folder or a Hugging Face id, in eval mode.

        Args:
            pretrained_model_name_or_path: folder, or id such as "me/pgexp-kins".
            force_download: download again what the cache holds.
            token: Hugging Face token; None: the stored one.
            cache_dir: where downloads go; None: Hugging Face's own cache.
            local_files_only: never use the network.
            revision: branch, tag or commit of the Hugging Face repository.
            device: where the model goes.
        """
        from amodal.train.checkpoints import CARD, CONFIG, PRIOR, WEIGHTS, load_model

        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return load_model(name, device)
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, WEIGHTS, CARD, f"{PRIOR}/*"],
        )
        return load_model(folder, device)
