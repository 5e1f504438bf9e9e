"""The modules of the Space, which are no package: its folder is put on the path, as on the Hub."""

import sys

from tests.faults.judge import ROOT

sys.path.insert(0, str(ROOT / "model_cards" / "space"))

import page_parts
import scene_file
import segmenter

__all__ = ["page_parts", "scene_file", "segmenter"]
