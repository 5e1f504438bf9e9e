"""The `co2s evaluate-map` command: a class map against polygons, a raster or a sample of points."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..raster.areas import ground_areas
from ..raster.errors import RasterError
from ..raster.vectors import Features
from .evaluation_report import (
    comparison_metrics,
    comparison_text,
    draw_confusion,
    sample_metrics,
    sample_text,
    write_confusion,
)
from .map_evaluation import ClassMap, Comparison, assess, class_map, compare
from .references import (
    ClassLookup,
    ReferencePolygons,
    is_missing,
    place_points,
    read_reference_features,
    read_strata_areas,
    reference_raster,
)
from .results import files_together, write_json

if TYPE_CHECKING:
    from argparse import _SubParsersAction

FILES = ("metrics.json", "confusion.csv", "confusion.png")
BOUNDARY_PX = 3


def add_evaluate_map(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `evaluate-map` to the `co2s` command."""
    evaluate = commands.add_parser("evaluate-map", help="compare a class map with polygons, a raster or points")
    evaluate.add_argument("map", help="class map, such as STEM.classes.tif of co2s predict")
    evaluate.add_argument(
        "reference", help="polygons or points (any OGR file; points also .csv, .tsv, .txt), or a raster of ids"
    )
    evaluate.add_argument("--output", type=Path, required=True, help=f"folder for {', '.join(FILES)}")
    evaluate.add_argument(
        "--classes", nargs="+", metavar="NAME", help="of the map, in the order of ids; default: its own"
    )
    renaming = "classes of the reference to those of the map; TO may be `ignore`"
    evaluate.add_argument("--rename", nargs="+", default=[], metavar="FROM=TO", help=renaming)
    evaluate.add_argument("--reference_field", help="that holds the class, name or id; default: class, else class_id")
    evaluate.add_argument("--reference_layer", help="of a file with several layers")
    evaluate.add_argument("--reference_band", type=int, help="of a raster with several bands, counted from 1")
    evaluate.add_argument("--reference_crs", help="of polygons or points that do not say, as EPSG:32633")
    evaluate.add_argument(
        "--strata", metavar="COLUMN", help="of points: the stratum that each was drawn in, if not its class"
    )
    evaluate.add_argument("--strata_areas", metavar="FILE", help="CSV of all strata: stratum, and area in any unit")
    width = evaluate.add_mutually_exclusive_group()
    width.add_argument("--boundary_px", type=int, help=f"half the width of boundaries; default: {BOUNDARY_PX}")
    width.add_argument("--boundary_m", type=float, help="the same in metres, rounded to whole pixels")
    evaluate.add_argument("--force", action="store_true", help="replace an earlier evaluation")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    if is_missing(arguments.reference):
        raise RasterError(f"{arguments.reference} is not there; expected polygons, points or a raster.")
    if (arguments.strata is None) != (arguments.strata_areas is None):
        raise RasterError("--strata COLUMN and --strata_areas FILE go together. Give both, or none of them.")
    if arguments.strata_areas is not None and is_missing(arguments.strata_areas):
        raise RasterError(f"{arguments.strata_areas} is not there; expected a CSV of the strata and their areas.")
    with class_map(arguments.map, arguments.classes) as the_map:
        lookup = ClassLookup(the_map.classes, _renamed(arguments.rename))
        with files_together(arguments.output, FILES, force=arguments.force) as folder:
            features = read_reference_features(
                arguments.reference,
                the_map.grid,
                field=arguments.reference_field,
                layer=arguments.reference_layer,
                crs=arguments.reference_crs,
                strata=arguments.strata,
            )
            if features is not None and features.are_points:
                metrics, counts, text = _sampled(the_map, features, lookup, arguments)
            elif arguments.strata is not None:
                raise RasterError(f"{arguments.reference} holds no points, so --strata means nothing. Leave it out.")
            else:
                metrics, counts, text = _compared(the_map, features, lookup, arguments)
            metrics = {"map": Path(arguments.map).name, "reference": Path(arguments.reference).name, **metrics}
            metrics["confusion"] = counts.tolist()
            write_json(folder / FILES[0], metrics)
            write_confusion(folder / FILES[1], counts, the_map.classes)
            draw_confusion(folder / FILES[2], counts, the_map.classes, metrics["kind"])
    print(f"{arguments.map} against {arguments.reference}\n{text}")
    return 0


def _sampled(
    the_map: ClassMap, points: Features, lookup: ClassLookup, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Any, str]:
    areas = None
    if arguments.strata_areas is not None:
        areas = read_strata_areas(arguments.strata_areas, arguments.strata)
    found = assess(the_map, place_points(points, the_map.grid, the_map.path, lookup), areas)
    metrics = {"kind": "points", **sample_metrics(found, the_map.classes)}
    return metrics, found.counts, sample_text(metrics)


def _compared(
    the_map: ClassMap, polygons: Features | None, lookup: ClassLookup, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Any, str]:
    gsd_m = ground_areas(the_map.grid).gsd_m
    width = _boundary_px(arguments, gsd_m)
    notes: dict[str, Any] = {}
    if polygons is not None:
        reference = ReferencePolygons(polygons, the_map.grid, the_map.path, lookup)
        found: Comparison = compare(the_map, reference, width, progress=True)
        notes["pixels_of_two_classes"] = reference.contested
    else:
        band = arguments.reference_band
        with reference_raster(arguments.reference, the_map.grid, the_map.path, lookup, band) as raster:
            found = compare(the_map, raster, width, progress=True)
    metrics = {"kind": "pixels", **comparison_metrics(found, the_map.classes, gsd_m), **notes}
    text = comparison_text(metrics)
    if notes.get("pixels_of_two_classes"):
        text += f"\nnote: {notes['pixels_of_two_classes']:,} pixels in polygons of two classes are left out"
    if metrics["share_of_data_compared"] < 0.999:
        text += (
            "\nnote: these numbers are of the pixels compared; for the accuracy of the whole map with its standard "
            "error, compare with a random sample of points"
        )
    return metrics, found.scores.counts, text


def _boundary_px(arguments: argparse.Namespace, gsd_m: float | None) -> int:
    if arguments.boundary_m is None:
        return BOUNDARY_PX if arguments.boundary_px is None else int(arguments.boundary_px)
    if gsd_m is None:
        raise RasterError(f"{arguments.map} has no CRS, so --boundary_m means nothing. Give --boundary_px instead.")
    if not 0 < arguments.boundary_m < math.inf:
        raise RasterError(f"--boundary_m is {arguments.boundary_m}; expected metres above 0.")
    return max(1, round(arguments.boundary_m / gsd_m))


def _renamed(pairs: Sequence[str]) -> dict[str, str]:
    renamed = {}
    for pair in pairs:
        source, sign, target = pair.partition("=")
        if not (source and sign and target):
            raise RasterError(f"--rename {pair} is no pair; expected FROM=TO, as sea=water.")
        renamed[source.strip()] = target.strip()
    return renamed


__all__ = ["BOUNDARY_PX", "FILES", "add_evaluate_map"]
