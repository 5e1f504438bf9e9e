"""What one image became, and what the page shows of it in each view. No model runs here."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import page_parts as html
from co2s_hf.raster.areas import GroundAreas
from co2s_hf.raster.colours import class_colours
from scene_file import Scene, pixel_areas, write_geotiff, write_png
from segmentation_view import (
    NO_DATA,
    ClassMap,
    ClassShare,
    Colour,
    class_shares,
    colour_layer,
    disagreement,
    disagreement_layer,
)

STUDENTS = ("CLIP", "DINOv3")
SIDE_BY_SIDE, DISAGREEMENT = "Side by side", "Disagreement"
DISPUTED_COLOUR: Colour = (255, 0, 170)


@dataclass(frozen=True)
class Shown:
    """One view: three pieces of HTML and the two files to take along."""

    stage: str
    legend: str
    table: str
    png: Path
    geotiff: Path


@dataclass(frozen=True)
class Result:
    """The class maps of one user's image; they lie in that user's session and nowhere else.

    Attributes:
        scene: header of the image.
        photo_uri: the image for the eye.
        maps: name of a prediction -> (H, W) class ids; the one to show first comes first.
        classes: class names in the order of their ids.
        model: name of the model.
        folder: where files of this result are written when they are asked for.
    """

    scene: Scene
    photo_uri: str
    maps: dict[str, ClassMap]
    classes: list[str]
    model: str
    folder: Path

    @cached_property
    def colours(self) -> list[Colour]:
        """Colour of each class."""
        return class_colours(self.classes)

    @cached_property
    def ground(self) -> GroundAreas:
        """Area of the pixels on the ground, where the image tells."""
        return pixel_areas(self.scene)

    @cached_property
    def disputed(self) -> NDArray[np.bool_] | None:
        """(H, W), where the two students differ; None with one prediction."""
        if not all(student in self.maps for student in STUDENTS):
            return None
        return disagreement(*(self.maps[student] for student in STUDENTS))

    @property
    def views(self) -> list[str]:
        """What can be shown, the first one first."""
        return [*self.maps, *([] if self.disputed is None else [SIDE_BY_SIDE, DISAGREEMENT])]

    def show(self, view: str) -> Shown:
        """One view; side by side and disagreement come with table and files of the fused prediction."""
        name = view if view in self.maps else next(iter(self.maps))
        shares = self._shares(name)
        if view == DISAGREEMENT and self.disputed is not None:
            layers = {view: disagreement_layer(self.disputed, DISPUTED_COLOUR)}
            with_data = max(sum(one.pixels for one in shares), 1)
            legend = html.disagreement_legend(DISPUTED_COLOUR, int(self.disputed.sum()) / with_data)
        else:
            shown = STUDENTS if view == SIDE_BY_SIDE else (name,)
            layers = {title: colour_layer(self.maps[title], self.colours) for title in shown}
            legend = html.legend({title: self._shares(title) for title in shown})
        pictures = {title: html.layer_uri(layer) for title, layer in layers.items()}
        png, geotiff = self._files(name)
        return Shown(
            stage=html.stage(self.photo_uri, pictures, (self.scene.height, self.scene.width)),
            legend=legend,
            table=html.table(shares, self._note(name)),
            png=png,
            geotiff=geotiff,
        )

    def remove_files(self) -> None:
        """Remove what was written; called when a session ends, too."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shares(self, name: str) -> list[ClassShare]:
        return class_shares(self.maps[name], self.classes, self.colours, self.ground, self.disputed)

    def _files(self, name: str) -> tuple[Path, Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        png, geotiff = (self.folder / f"{self.scene.stem}_{name.lower()}_mask{ending}" for ending in (".png", ".tif"))
        if not geotiff.exists():
            write_png(png, self.maps[name], self.classes, self.colours)
            tags = {"MODEL": self.model, "PREDICTION": name}
            write_geotiff(geotiff, self.maps[name], self.classes, self.colours, self.scene.grid, **tags)
        return png, geotiff

    def _note(self, name: str) -> str:
        without_data = int(np.count_nonzero(self.maps[name] == NO_DATA))
        parts = [f"{name} prediction."] if len(self.maps) > 1 else []
        parts.append(f"Areas: {self.ground.method}.")
        if without_data:
            parts.append(f"{without_data:,} pixels without data are left out.")
        if self.disputed is not None:
            parts.append("Disputed: share of the pixels of a class on which CLIP and DINOv3 differ.")
        return " ".join(parts)


__all__ = ["DISAGREEMENT", "SIDE_BY_SIDE", "STUDENTS", "Result", "Shown"]
