"""Drawn occlusion scenes: objects of parametric shape families under each other and under clutter, with exact masks."""

from amodal.data.scenes.dataset import write_dataset
from amodal.data.scenes.families import CLASS_NAMES
from amodal.data.scenes.scene import SETTINGS, Scene, SceneSettings, draw

__all__ = ["CLASS_NAMES", "SETTINGS", "Scene", "SceneSettings", "draw", "write_dataset"]
