"""A scene as a model sees it: its bands, its values and its resolution, by what its file and a person say."""

import argparse
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from ..raster.areas import ground_areas
from ..raster.errors import RasterError
from ..raster.grid import MAX_SIDE_PX
from ..raster.image import NoData, Reading
from ..raster.read import RasterFile, open_raster
from ..raster.resample import OpenRaster, Resampled


@dataclass(frozen=True)
class SceneOptions:
    """What is known of scenes besides what their files say; the same for every command.

    Attributes:
        bands: of the scene, counted from 1, in the order of the model's; None: by description, else by colour, else by
            order.
        nodata: value of bands without data, besides what the file says.
        nodata_within: how far values may lie from it, as JPEG smears them; if not 0, only what is connected to the
            border of the scene holds no data.
        scale, offset: from stored values to those of the model, `stored * scale + offset`; None: as the file says, else
            as in training, else by the bits of the type.
        gsd: metres per pixel to resample to, or "training": those of the images of training; None: as it is.
    """

    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    nodata_within: float = 0.0
    scale: float | None = None
    offset: float | None = None
    gsd: float | str | None = None

    def __post_init__(self) -> None:
        """Refuse a tolerance of nothing."""
        if self.nodata is None and self.nodata_within:
            raise RasterError(f"--nodata_within is {self.nodata_within:g} without --nodata; name the value, such as 0.")

    @property
    def says_nothing(self) -> bool:
        """Whether the file alone counts."""
        return all(getattr(self, field.name) == field.default for field in fields(SceneOptions))

    def reading(self, config: Any) -> Reading:
        """How a scene is read for a model of this configuration."""
        return Reading.for_model(
            config,
            numbers=self.bands,
            nodata=None if self.nodata is None else NoData(self.nodata, self.nodata_within),
            scale=self.scale,
            offset=self.offset,
        )


def add_scene_options(parser: "argparse._ActionsContainer") -> None:
    """Add the options that say how scenes are read."""
    parser.add_argument("--bands", type=int, nargs="+", help="of the scene, counted from 1, in the model's order")
    parser.add_argument("--nodata", type=float, help="value of bands without data, besides what the file says")
    within = "how far values at the border of the scene may lie from --nodata, as JPEG smears them"
    parser.add_argument("--nodata_within", type=float, default=0.0, metavar="VALUES", help=within)
    scale = "factor on stored values, as 1e-4 for reflectances of 16 bits; default: what the file says"
    parser.add_argument("--scale", type=float, help=scale)
    parser.add_argument("--offset", type=float, help="what is added to scaled values; default: what the file says")
    parser.add_argument("--gsd", help="resample to so many metres per pixel, or to those of `training`")


def scene_options(arguments: argparse.Namespace) -> SceneOptions:
    """What was said with `add_scene_options`."""
    given = {field.name: getattr(arguments, field.name) for field in fields(SceneOptions)}
    given["bands"] = None if arguments.bands is None else tuple(arguments.bands)
    return SceneOptions(**given)


@contextmanager
def open_scene(path: str | os.PathLike[str], options: SceneOptions, config: Any) -> Iterator[OpenRaster]:
    """Open a scene as a model sees it; see `scene_of`."""
    with open_raster(path, options.reading(config)) as file:
        yield _prepared(file, options, config)


def scene_of(dataset: Any, options: SceneOptions, config: Any) -> OpenRaster:
    """An open dataset as a model sees it: its bands, its scale, and its resolution if asked for.

    Args:
        dataset: open rasterio dataset; or a raster that is open already, which stays as it is.
        options: see there.
        config: of the model.

    Raises:
        RasterError: it does not fit the model, does not say where it lies in a way that can be used, or the options
            were to be said when it was opened.
    """
    if not isinstance(dataset, OpenRaster):
        return _prepared(RasterFile(dataset, dataset.name, options.reading(config)), options, config)
    if not options.says_nothing:
        raise RasterError(f"{dataset.name} is open already; give bands, nodata, scale, offset and gsd on opening it.")
    return dataset


def _prepared(file: RasterFile, options: SceneOptions, config: Any) -> OpenRaster:
    file.require_place()
    trained = config.training_images or {}
    if _scaled_as_in_training(file, trained):
        reading = replace(file.reading, scale=trained.get("scale"), offset=trained.get("offset"))
        file = RasterFile(file.dataset, file.source, reading)
    file.require_meaning()
    if options.gsd is None:
        return file
    own_m = ground_areas(file.grid).gsd_m
    if own_m is None:
        raise RasterError(f"{file.name} does not say how large its pixels are, so --gsd means nothing. Leave it out.")
    factor = _wanted_gsd_m(options.gsd, trained) / own_m
    if (side := max(file.height, file.width) / factor) > MAX_SIDE_PX:
        raise RasterError(
            f"{file.name} would have {side:.3g} px on a side; expected at most {MAX_SIDE_PX}. Give a larger --gsd."
        )
    return Resampled(file, *(max(1, round(size / factor)) for size in (file.height, file.width)))


def _scaled_as_in_training(file: RasterFile, trained: dict[str, Any]) -> bool:
    """Whether neither the scene nor a person says how its integers are scaled, and those of training were the same."""
    is_said = file.reading.scale is not None or file.reading.offset is not None
    is_said |= file.palette is not None or any(band.is_scaled for band in file.bands)
    knows = trained.get("scale") is not None or trained.get("offset") is not None
    return knows and not is_said and file.dtype.kind in "iu" and str(file.dtype) == trained.get("dtype")


def _wanted_gsd_m(gsd: float | str, trained: dict[str, Any]) -> float:
    if gsd == "training":
        if trained.get("gsd_m") is None:
            raise RasterError("The model does not record its metres per pixel of training. Give --gsd as a number.")
        return float(trained["gsd_m"])
    try:
        wanted = float(gsd)
    except ValueError:
        wanted = 0.0
    if not 0 < wanted < math.inf:
        raise RasterError(f"--gsd is {gsd}; expected metres per pixel above 0, or `training`.")
    return wanted


__all__ = ["SceneOptions", "add_scene_options", "open_scene", "scene_of", "scene_options"]
