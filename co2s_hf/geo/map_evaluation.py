"""A class map against a reference: block by block for polygons and rasters, point by point for a sample."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..raster.areas import ClassArea, class_areas, ground_areas
from ..raster.cog import NODATA, named_classes, opened
from ..raster.errors import RasterError
from ..raster.grid import Grid
from .accuracy import ClassScores, SampleEstimates, sample_estimates, stratified_estimates
from .boundaries import BoundaryCounts
from .references import Reference, SamplePoints

BLOCK_PX = 1024
MAX_BOUNDARY_PX = 256
BAR = "comparing: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


class ClassMap:
    """An open raster of class ids.

    Args:
        dataset: an open rasterio dataset with one band.
        path: where it is, for errors.
        classes: names in the order of the ids; None: the map says.

    Raises:
        RasterError: it is no class map.

    Attributes:
        grid: of its pixels.
        classes: names.
    """

    def __init__(self, dataset: Any, path: str, classes: Sequence[str] | None = None) -> None:
        """Look at what the dataset says."""
        if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "iu":
            raise RasterError(
                f"{path} has {dataset.count} band{'s' if dataset.count > 1 else ''} of {dataset.dtypes[0]}; expected a "
                "class map with one band of whole numbers, such as STEM.classes.tif of `co2s predict`."
            )
        named = named_classes(dataset) if classes is None else None
        if classes is None and named is None:
            raise RasterError(f"{path} does not name its classes. Name them in the order of their ids with --classes.")
        self.dataset, self.path, self.grid = dataset, path, Grid.of(dataset)
        self.classes: list[str] = list(classes or named or ())
        if not 2 <= len(self.classes) <= NODATA:
            raise RasterError(f"{path} has {len(self.classes)} classes; expected 2 to {NODATA}.")

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Class ids of a rectangle, 255 where there is no data."""
        values = self.dataset.read(1, window=((rows.start, rows.stop), (columns.start, columns.stop)))
        empty = values == NODATA
        if self.dataset.nodata is not None:
            empty |= values == self.dataset.nodata
        strays = values[~empty & ((values < 0) | (values >= len(self.classes)))]
        if len(strays):
            raise RasterError(
                f"{self.path} holds {strays[0]}, but has {len(self.classes)} classes ({', '.join(self.classes)}). Name "
                "all of them, in the order of their ids, with --classes."
            )
        return np.where(empty, NODATA, values).astype(np.uint8)

    def blocks(self, block_px: int = BLOCK_PX) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
        """(top, left, class ids), from the left to the right and the top to the bottom."""
        for rows in _steps(self.grid.height, block_px):
            for columns in _steps(self.grid.width, block_px):
                yield rows.start, columns.start, self.read(rows, columns)


@contextmanager
def class_map(path: str, classes: Sequence[str] | None = None) -> Iterator[ClassMap]:
    """Open a class map; see `ClassMap`."""
    with opened(path) as dataset:
        yield ClassMap(dataset, path, classes)


def _steps(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


@dataclass(frozen=True)
class Comparison:
    """A map against a reference, over all pixels where both say something.

    Attributes:
        scores: of each class.
        boundaries: what lies near outlines.
        data: pixels of the map that hold data.
    """

    scores: ClassScores
    boundaries: BoundaryCounts
    data: int


def compare(
    the_map: ClassMap, reference: Reference, boundary_px: int, *, block_px: int = BLOCK_PX, progress: bool = False
) -> Comparison:
    """Count pixels of (class of the map, class of the reference); memory holds one block of `block_px`.

    Args:
        the_map: open.
        reference: on its grid.
        boundary_px: width of the band for the boundary IoU.
        block_px: does not change the result.
        progress: show a bar.

    Raises:
        RasterError: map and reference have no pixel in common.
    """
    if not 1 <= boundary_px <= MAX_BOUNDARY_PX:
        raise RasterError(f"The boundary width is {boundary_px} px; expected 1 to {MAX_BOUNDARY_PX}.")
    size = len(the_map.classes)
    grid, counts, data = the_map.grid, np.zeros((size, size), np.int64), 0
    boundaries = BoundaryCounts(size, boundary_px)
    with tqdm(total=grid.height * grid.width, bar_format=BAR, disable=None if progress else True, leave=False) as bar:
        for rows in _steps(grid.height, block_px):
            for columns in _steps(grid.width, block_px):
                around = _widened(rows, boundary_px, grid.height), _widened(columns, boundary_px, grid.width)
                inner = _inside(rows, around[0]), _inside(columns, around[1])
                mapped, truth = the_map.read(*around), reference.read(*around, inner)
                counts += confusion(mapped[inner], truth[inner], size)
                data += int((mapped[inner] != NODATA).sum())
                boundaries.add(mapped, truth, inner)
                bar.update(mapped[inner].size)
    if not counts.any():
        raise RasterError(
            f"{the_map.path} and the {reference.kind} have no pixel in common where both say a class; expected a "
            "reference of the place that the map shows."
        )
    return Comparison(ClassScores(counts), boundaries, data)


def _widened(pixels: slice, by: int, size: int) -> slice:
    return slice(max(0, pixels.start - by), min(size, pixels.stop + by))


def _inside(pixels: slice, around: slice) -> slice:
    return slice(pixels.start - around.start, pixels.stop - around.start)


def confusion(mapped: NDArray[np.uint8], reference: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """(size, size) counts, rows = map, columns = reference; where one is 255 nothing is counted."""
    known = (mapped != NODATA) & (reference != NODATA)
    pairs = mapped[known].astype(np.int64) * size + reference[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


@dataclass(frozen=True)
class Stratum:
    """What a sample was drawn in: its name, its area in any unit, and how many points of it lie on the map."""

    name: str
    area: float
    points: int


@dataclass(frozen=True)
class SampleAssessment:
    """A map against a sample of points.

    Attributes:
        counts: (N, N) points, rows = map, columns = reference.
        areas: of each class in the map.
        estimates: for the whole map.
        outside: points that lie off the map or its data, or are to be ignored.
        strata: that the sample was drawn in; empty where these are the classes of the map.
    """

    counts: NDArray[np.int64]
    areas: list[ClassArea]
    estimates: SampleEstimates
    outside: int
    strata: tuple[Stratum, ...] = ()


def assess(
    the_map: ClassMap,
    points: SamplePoints,
    strata_areas: Mapping[str, float] | None = None,
    *,
    block_px: int = BLOCK_PX,
) -> SampleAssessment:
    """Estimate accuracies and areas from a sample; see `co2s_hf.geo.accuracy`.

    Args:
        the_map: open.
        points: with their strata if there are `strata_areas`.
        strata_areas: area of each stratum in any unit; None where the strata are the classes of the map.
        block_px: does not change the result.

    Raises:
        RasterError: no point lies where the map holds data, or the area of a stratum is missing.
    """
    mapped = _at_points(the_map, points)
    size = len(the_map.classes)
    counts = confusion(mapped, points.class_ids, size)
    if not counts.any():
        raise RasterError(f"No point of the sample lies where {the_map.path} holds data; expected points on the map.")
    areas = class_areas(the_map.blocks(block_px), the_map.classes, ground_areas(the_map.grid))
    outside = points.outside + int((mapped == NODATA).sum())
    if strata_areas is None:
        mapped_areas = [area.pixels if area.area_m2 is None else area.area_m2 for area in areas]
        return SampleAssessment(counts, areas, sample_estimates(counts, np.array(mapped_areas)), outside)
    assert points.strata is not None
    unknown = sorted(set(points.strata.tolist()) - set(strata_areas))
    if unknown:
        raise RasterError(
            f"The sample has points in the strata {', '.join(one or '(empty)' for one in unknown[:6])}"
            f"{' …' if len(unknown) > 6 else ''}; expected one of {', '.join(strata_areas)}. Give the areas of all."
        )
    by_stratum = np.stack(
        [
            confusion(mapped[here], points.class_ids[here], size)
            for here in (points.strata == one for one in strata_areas)
        ]
    )
    strata = tuple(
        Stratum(name, area, int(one.sum())) for (name, area), one in zip(strata_areas.items(), by_stratum, strict=True)
    )
    estimates = stratified_estimates(by_stratum, list(strata_areas.values()))
    return SampleAssessment(counts, areas, estimates, outside, strata)


def _at_points(the_map: ClassMap, points: SamplePoints, block_px: int = 512) -> NDArray[np.uint8]:
    """The map's classes at points; each block that holds some is read once."""
    found = np.full(len(points.rows), NODATA, np.uint8)
    corners = np.stack([points.rows // block_px, points.columns // block_px], axis=1)
    for row, column in np.unique(corners, axis=0).tolist():
        here = (corners == (row, column)).all(axis=1)
        top, left = row * block_px, column * block_px
        rows = slice(top, min(top + block_px, the_map.grid.height))
        block = the_map.read(rows, slice(left, min(left + block_px, the_map.grid.width)))
        found[here] = block[points.rows[here] - top, points.columns[here] - left]
    return found


__all__ = [
    "BLOCK_PX",
    "ClassMap",
    "Comparison",
    "MAX_BOUNDARY_PX",
    "SampleAssessment",
    "Stratum",
    "assess",
    "class_map",
    "compare",
    "confusion",
]
