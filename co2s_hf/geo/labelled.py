"""What has labels already, so that nobody is asked for them again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..raster.errors import RasterError
from ..raster.vectors import Features, covered, layers_of, lines_of, on_grid, read_features
from .tiles import Tile

LEAST_COVERED = 0.01  # of a tile: outlines that were reprojected reach a little into their neighbours
COLUMNS = ("file", "row", "column", "height", "width")


@dataclass
class Labelled:
    """Labelled images, tiles and polygons.

    Attributes:
        stems: names, without their ending, of images that are labelled as a whole.
        tiles: (path, top, left, bottom, right) in px.
        polygons: of labelled ground.
    """

    stems: set[str] = field(default_factory=set)
    tiles: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    polygons: list[Features] = field(default_factory=list)

    def add(self, source: Path) -> None:
        """Read one source.

        Args:
            source: a folder of masks or images, whose names without their ending are those of labelled images; a .txt
                with such a name or a path in each line; the .csv of an earlier suggestion, cut down to what was
                labelled; or any file of polygons that OGR reads, such as its GeoPackage.

        Raises:
            RasterError: it is none of these.
        """
        if source.is_dir():
            self.stems |= {path.stem for path in source.iterdir() if path.is_file() and path.name[0] != "."}
        elif source.suffix.lower() == ".txt":
            try:
                lines = source.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise RasterError(f"{source} is no UTF-8 text ({error}); expected a name in each line.") from None
            self.stems |= {Path(line.strip()).stem for line in lines if line.strip()}
        elif source.suffix.lower() == ".csv":
            self._add_table(source)
        elif source.exists() and layers_of(source):
            for layer in layers_of(source):
                features = read_features(source, classes=False, layer=layer)
                if features.crs is None or features.are_points:
                    raise RasterError(
                        f"{source} holds {'points' if features.are_points else 'polygons without a CRS'}; expected "
                        "polygons with one. For tiles of images without a CRS name the .csv of the suggestions."
                    )
                self.polygons.append(features)
        else:
            raise RasterError(
                f"{source} says nothing of labels; expected a folder of masks, a .txt with names, a suggestions.csv, "
                "or polygons with a CRS."
            )

    def _add_table(self, source: Path) -> None:
        for line in lines_of(source):
            try:
                top, left, height, width = (int(line[name]) for name in COLUMNS[1:])
                self.tiles.append((line["file"], top, left, top + height, left + width))
            except (KeyError, TypeError, ValueError) as error:
                raise RasterError(
                    f"{source} is no table of tiles ({error}); expected the columns {', '.join(COLUMNS)}."
                ) from None

    def among(self, tiles: Sequence[Tile]) -> NDArray[np.bool_]:
        """(n,) which tiles of one scene have labels: any of their pixels, or 1 % of them under polygons."""
        path, grid = tiles[0].path, tiles[0].grid
        if Path(path).stem in self.stems:
            return np.ones(len(tiles), np.bool_)
        boxes = np.array([one.box for one in tiles])  # top, left, bottom, right in px of the file
        found = np.zeros(len(tiles), np.bool_)
        for other, top, left, bottom, right in self.tiles:
            if _same_file(path, other):
                inside = (boxes[:, 1] < right) & (boxes[:, 3] > left)
                found |= inside & (boxes[:, 0] < bottom) & (boxes[:, 2] > top)
        on_ground = [(one.columns.start, one.rows.start, one.columns.stop, one.rows.stop) for one in tiles]
        for features in self.polygons:
            found |= covered(on_grid(features, grid, path), np.array(on_ground, np.float64)) >= LEAST_COVERED
        return found


def _same_file(one: str, other: str) -> bool:
    """Paths of one file; the name decides where the other one is gone, as after a folder has moved."""
    if Path(other).exists() and Path(one).exists():
        return Path(one).samefile(other)
    return Path(one).name == Path(other).name


__all__ = ["COLUMNS", "Labelled"]
