"""What is generated for co2s_hf/geo: scenes, class maps, points and polygons, and the options of its commands."""

import contextlib
import importlib
import io
import json
import shutil
import struct
import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from co2s_hf.__main__ import _parser
from co2s_hf.geo.accuracy import sample_estimates
from co2s_hf.geo.windows import WindowGrid, cut_bands, share
from co2s_hf.raster.areas import class_areas, ground_areas
from co2s_hf.raster.grid import Grid
from tests.faults.fuzz_values import JUNK, Target, Try, shown
from tests.faults.judge import Row
from tests.geo.pixel_model import NAMES, PixelModel, pixel_processor

UTM = "EPSG:32633"
SYSTEMS = [
    UTM, "EPSG:4326", "EPSG:3857", "EPSG:32661", "EPSG:4978", "EPSG:7415", "EPSG:2154", None,
    'LOCAL_CS["site",UNIT["metre",1]]', "+proj=geos +h=35785831 +lon_0=0", "+proj=longlat +a=1 +b=0.5",
]  # fmt: skip
PLACES = [
    (2, 0, 500_000, 0, -2, 5_000_000), (1, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0), (1, 1, 0, 1, 1, 0),
    (1, 0.5, 10, 0.5, -1, 20), (1e300, 0, 1e300, 0, 1e300, 0), (1e-300, 0, 0, 0, 1e-300, 0), (1, 0, 0, 0, 30, 80),
    (float("nan"), 0, 0, 0, float("inf"), 0), (0.001, 0, 12, 0, -0.001, 45), (-2, 0, 1e6, 0, 2, -1e7),
]  # fmt: skip
KINDS = ["uint8", "uint8", "uint16", "int16", "int8", "uint32", "int64", "float32", "float64", "complex64"]
FILLS = st.sampled_from([0, 1, 2, 3, 255, -1, np.nan, np.inf, -np.inf, 1e30, 1e308])
TAGS = st.one_of(st.none(), st.none(), JUNK.map(json.dumps), st.sampled_from(["{", "", "[[1]]", '["a"]']))
SIZES = st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([(1, 1), (300, 2), (2, 300)]))
LONG = st.sampled_from([(1, 100_000), (100_000, 1)])

# ---------------------------------------------------------------------------------------------------------------------
# Rasters
# ---------------------------------------------------------------------------------------------------------------------


@st.composite
def geotiffs(
    give: Any,
    bands: st.SearchStrategy[int],
    sizes: st.SearchStrategy[tuple[int, int]],
    kinds: Sequence[str] = KINDS,
    fills: st.SearchStrategy[float] = FILLS,
    tags: st.SearchStrategy[str | None] = TAGS,
) -> tuple[str, bytes]:
    """A GeoTIFF of any type, place, nodata and metadata, sometimes damaged, as (what it is, its bytes)."""
    from rasterio.io import MemoryFile

    kind, count, (height, width) = give(st.sampled_from(kinds)), give(bands), give(sizes)
    profile: dict[str, Any] = dict(driver="GTiff", count=count, height=height, width=width, dtype=kind)
    system, place = give(st.sampled_from(SYSTEMS)), give(st.sampled_from([*PLACES[:1] * 8, *PLACES, None]))
    profile |= {"crs": system} | ({} if place is None else {"transform": _affine(place)})
    profile |= give(st.sampled_from([{}, {"compress": "deflate"}, {"photometric": "rgb"}, {"tiled": True}]))
    with warnings.catch_warnings(), np.errstate(all="ignore"), MemoryFile() as memory:
        warnings.simplefilter("ignore")
        pixels = np.random.default_rng(give(st.integers(0, 9))).integers(0, 4, (count, height, width)).astype(kind)
        pixels[give(st.integers(0, count - 1)), : height // 2] = np.array(give(fills)).astype(kind)
        nodata, text = give(st.sampled_from([None, None, 0, 255, -1, np.nan, 1e30])), give(tags)
        try:
            _write(memory, profile | {"nodata": nodata}, pixels, text)
        except Exception:  # not every type and size takes every option
            profile = {key: profile[key] for key in ("driver", "count", "height", "width", "dtype")}
            _write(memory, profile, pixels, text)
        data = bytearray(memory.read())
    for _ in range(give(st.sampled_from([0, 0, 0, 0, 0, 1, 3]))):
        data[give(st.integers(0, min(len(data), 600) - 1))] = give(st.integers(0, 255))
    return f"{kind} {count}x{height}x{width} {system} {place}", bytes(data)


def _write(memory: Any, profile: dict[str, Any], pixels: Any, classes: str | None = None) -> None:
    import rasterio

    with rasterio.open(memory.name, "w", **profile) as file:
        file.write(pixels)
        if classes is not None:
            file.update_tags(classes=classes)


def _affine(place: Any) -> Any:
    from rasterio.transform import Affine

    return Affine(*place)


@st.composite
def virtual(give: Any) -> tuple[str, bytes]:
    """A VRT, which says of itself how large it is and what is in it."""
    numbers = st.sampled_from([1, 0, -1, 7, 100_000, 2**31 - 1, 2**40])
    height, width, bands = give(numbers), give(numbers), give(st.sampled_from([0, 1, 3, 4]))
    system, place = give(st.sampled_from(["", UTM, "nonsense", "EPSG:4326"])), give(st.sampled_from(PLACES))
    kind = give(st.sampled_from(["Byte", "Float32", "CFloat64", "UInt16", "Nothing"]))
    source = give(st.sampled_from(["", "fuzzed.tif", "/nowhere.tif", "/etc/passwd", "\0"]))
    inner = f"<SimpleSource><SourceFilename relativeToVRT='1'>{source}</SourceFilename></SimpleSource>"
    band = f"<VRTRasterBand dataType='{kind}'><NoDataValue>{give(FILLS)}</NoDataValue>{inner * (source != '')}"
    text = f"<VRTDataset rasterXSize='{width}' rasterYSize='{height}'><SRS>{system}</SRS>"
    text += f"<GeoTransform>{', '.join(map(str, place))}</GeoTransform>{(band + '</VRTRasterBand>') * bands}"
    return f"VRT {bands}x{height}x{width} {kind} {system} {place} {source!r}", f"{text}</VRTDataset>".encode()


@st.composite
def sparse(give: Any) -> tuple[str, bytes]:
    """A TIFF of a few bytes that says of itself that it is huge, in one strip or tile."""
    side = st.sampled_from([1, 16, 2**15, 2**20, 2**31 - 16, 2**32 - 16])
    height, width, block, depth = give(side), give(side), give(side), give(st.sampled_from([1, 8, 64]))
    tags = [(256, 4, width), (257, 4, height), (258, 3, depth), (259, 3, give(st.sampled_from([1, 5, 8])))]
    tags += [(262, 3, 1), (277, 3, 1)]
    if give(st.booleans()):
        tags += [(273, 4, 8), (278, 4, block), (279, 4, 20)]
    else:
        tags += [(322, 4, block), (323, 4, block), (324, 4, 8), (325, 4, 20)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + bytes(40)
    return f"TIFF of {height} x {width} px of {depth} bit in blocks of {block}", data


@st.composite
def plain(give: Any, bands: int, side: int = 40) -> tuple[str, bytes]:
    """A GeoTIFF in which nothing is strange, for the options and files around it; of one band: a class map."""
    from rasterio.io import MemoryFile

    pixels = np.random.default_rng(give(st.integers(0, 9))).integers(0, 3, (bands, side, side), np.uint8)
    profile = dict(driver="GTiff", count=bands, height=side, width=side, dtype="uint8", crs=UTM)
    with MemoryFile() as memory:
        _write(memory, profile | {"transform": _affine(PLACES[0])}, pixels, json.dumps(NAMES))
        return f"plain {bands}", bytes(memory.read())


RASTERS = st.one_of(
    plain(3),
    plain(3),
    geotiffs(st.just(3), SIZES),
    geotiffs(st.just(3), SIZES),
    geotiffs(st.integers(1, 5), st.one_of(SIZES, SIZES, SIZES, LONG)),
    virtual(),
    sparse(),
    st.binary(max_size=40).map(lambda data: ("bytes", data)),
    st.sampled_from([b"", b"II*\0", b"<VRTDataset/>", b'{"type": "FeatureCollection", "features": []}']).map(
        lambda data: ("start", data)
    ),
)
MAPS = st.one_of(
    *[
        geotiffs(st.just(1), SIZES, ["uint8"], st.sampled_from([0, 1, 2, 255]), st.just(json.dumps(NAMES)))
        for _ in range(4)
    ],
    geotiffs(st.just(1), SIZES),
    RASTERS,
)

# ---------------------------------------------------------------------------------------------------------------------
# Points and polygons
# ---------------------------------------------------------------------------------------------------------------------

RING = [[500_002.0, 4_999_998.0], [500_040.0, 4_999_998.0], [500_040.0, 4_999_950.0], [500_002.0, 4_999_998.0]]
COORDINATES = st.one_of(
    st.tuples(st.floats(499_990, 500_100), st.floats(4_999_900, 5_000_010)).map(list),
    st.lists(st.one_of(st.floats(), st.integers(-200, 200), st.just(10**400)), max_size=4),
    st.sampled_from([[], [None, None], ["x", "y"], [1e308, -1e308], [500_010.0, 4_999_990.0, 7.0]]),
)
RINGS = st.one_of(st.just(RING), st.lists(COORDINATES, max_size=7).map(lambda ring: ring + ring[:1]))
GEOMETRIES = st.one_of(
    COORDINATES.map(lambda point: {"type": "Point", "coordinates": point}),
    st.lists(RINGS, max_size=3).map(lambda rings: {"type": "Polygon", "coordinates": rings}),
    st.lists(RINGS, max_size=3).map(lambda rings: {"type": "MultiPolygon", "coordinates": [rings]}),
    st.sampled_from(
        [
            {"type": "Polygon", "coordinates": [RING]},
            {"type": "Polygon", "coordinates": [[RING[0], RING[2], RING[1], [500_002.0, 4_999_950.0], RING[0]]]},
            {"type": "Polygon", "coordinates": [[RING[0]] * 4]},
            {"type": "Point", "coordinates": [500_010.0, 4_999_990.0]},
            {"type": "LineString", "coordinates": RING},
            {"type": "GeometryCollection", "geometries": []},
            {"type": "CurvePolygon", "coordinates": []},
            None,
        ]
    ),
    JUNK,
)
CLASSES = st.one_of(st.sampled_from(["water", "road", "1", 0, 2, 1.0, "ignore", "", None, 99, -1, True]), JUNK)
FIELDS = st.dictionaries(st.sampled_from(["class", "class_id", "kind", "CLASS"]), CLASSES, max_size=2)


@st.composite
def features(give: Any) -> tuple[str, bytes]:
    """A GeoJSON, whole, strange or damaged."""
    system = give(st.sampled_from(["EPSG:32633"] * 6 + ["EPSG:4326", "EPSG:99999999", "urn:x", ""]))
    rows = give(st.lists(st.tuples(GEOMETRIES, st.one_of(FIELDS, st.just({"class": "water"}))), max_size=4))
    found = [{"type": "Feature", "geometry": shape, "properties": fields} for shape, fields in rows]
    document: Any = {"type": "FeatureCollection", "features": found}
    if system:
        document["crs"] = {"type": "name", "properties": {"name": system}}
    text = json.dumps(document)
    cut = give(st.sampled_from([None, None, None, None, 10, len(text) // 2]))
    return f"GeoJSON {system} {shown(found)}", text[:cut].encode("utf-8", "replace")


HEADS = st.lists(st.sampled_from(["x", "y", "lon", "lat", "class", "class_id", "file", "row", "", "X"]), max_size=6)
CELLS = st.one_of(st.sampled_from(["500010", "4999990", "water", "0", "nan", "inf", "1e999", "", '"', "x" * 200_000]),
    st.text(max_size=5))  # fmt: skip


@st.composite
def tables(give: Any) -> tuple[str, bytes]:
    """A CSV of points, or of tiles."""
    whole = [["x", "y", "class"], ["file", "row", "column", "height", "width"]]
    head = give(st.one_of(st.sampled_from(whole), HEADS))
    lines = [head, *give(st.lists(st.lists(CELLS, max_size=6), max_size=4))]
    text = "\n".join(",".join(line) for line in lines)
    return f"CSV {shown(text)}", text.encode("utf-8", "replace") + give(st.sampled_from([b"", b"\xff", b"\0"]))


FEATURES = st.one_of(
    features().map(lambda one: (".geojson", *one)),
    tables().map(lambda one: (".csv", *one)),
    st.binary(max_size=60).map(lambda data: (".gpkg", "bytes", data)),
    st.tuples(st.sampled_from([".shp", ".kml", ".txt", ".gpx", ".zip"]), st.text(max_size=60)).map(
        lambda one: (one[0], f"{one[0]} {one[1]!r}", one[1].encode("utf-8", "replace"))
    ),
)

POLYGON = {"type": "Polygon", "coordinates": [RING]}
PLAIN = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": UTM}},
    "features": [{"type": "Feature", "geometry": POLYGON, "properties": {"class": "water"}}],
}
REFERENCES = st.one_of(
    plain(1).map(lambda one: (".tif", *one)),
    st.just((".geojson", "plain polygon", json.dumps(PLAIN).encode())),
    st.just((".csv", "plain points", b"x,y,class\n500010,4999990,water\n500030,4999950,1\n")),
    FEATURES,
    MAPS.map(lambda one: (".tif", *one)),
)

# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------

VALUES = st.sampled_from(["0", "1", "-1", "2", "8", "64", "1000", "nan", "inf", "-inf", "1e-9", "1e400", "9" * 30, "x"])


def _options(numbers: list[str], flags: list[str], others: list[list[str]]) -> st.SearchStrategy[list[str]]:
    """Up to three options with any value."""
    valued = st.tuples(st.sampled_from(numbers), VALUES).map(lambda pair: [f"{pair[0]}={pair[1]}"])
    one = st.one_of(valued, st.sampled_from([[flag] for flag in flags] + others))
    return st.lists(one, max_size=3).map(lambda found: list(chain.from_iterable(found)))


PREDICT = _options(
    [
        "--nodata", "--scale", "--gsd", "--min_area_m2", "--simplify_m", "--window_px", "--overlap_px",
        "--batch_size", "--max-memory", "--band_px",
    ],
    ["--probabilities", "--disagreement", "--no_polygons", "--resume", "--merge"],
    [["--bands", "1", "1", "2"], ["--bands", "-1"], ["--bands", "9" * 30, "1", "2"], ["--gsd", "training"],
     ["--gsd", "4"], ["--shard", "0/0"], ["--shard", "0/2"], ["--shard", "9/" + "9" * 30]],
)  # fmt: skip
SUGGEST = _options(
    ["--nodata", "--scale", "--tile_px", "--count", "--diversity", "--min_data", "--batch_size"],
    ["--force"],
    [["--bands", "1", "1", "2"], ["--bands", "-1", "0", "1"], ["--min_data", "0"], ["--exclude", "LABELLED"]] * 2,
)  # fmt: skip
EVALUATE = _options(
    ["--reference_band", "--boundary_px", "--boundary_m", "--reference_field", "--reference_layer"],
    ["--force"],
    [["--classes", *NAMES, "--force"], ["--rename", "water=road"], ["--rename", "="], ["--rename", "99=ignore"],
     ["--classes", "a"], ["--reference_crs", UTM], ["--reference_crs", "nonsense"], ["--reference_field", "kind"]],
)  # fmt: skip


def _commands(words: Callable[[Any, Path], list[str]]) -> Callable[[Path], Try]:
    """Runs a command in a folder of its own; what it raises is judged before `main` makes a line of it."""

    def prepare(folder: Path) -> Try:
        for library in ("matplotlib.pyplot", "pyogrio", "pyproj", "rasterio.features", "shapely"):
            importlib.import_module(library)  # for seconds; the time is that of an input
        models = []
        for training_images in (None, {"gsd_m": 4.0, "dtype": "uint8"}):
            model = PixelModel(window_px=512, training_images=training_images).eval()
            models.append((model, pixel_processor()))

        def run(value: Any, place: Path) -> int:
            arguments = _parser().parse_args(words(value, place))
            return int(arguments.run(arguments))

        def try_one(row: Row, value: Any) -> None:
            place = folder / "geo"
            place.mkdir()
            loaded = models[row.tries % 2]
            silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
            try:
                with (
                    silent[0],
                    silent[1],
                    warnings.catch_warnings(),
                    mock.patch("co2s_hf.geo.command.load_model", lambda *_: loaded),
                    mock.patch("co2s_hf.geo.suggest_command.load_model", lambda *_: loaded),
                ):
                    warnings.simplefilter("ignore")
                    row.judge(lambda: run(value, place), shown_inputs(value))
            finally:
                shutil.rmtree(place)

        return try_one

    return prepare


def shown_inputs(value: Any) -> str:
    """What the files are, and the options, without the bytes."""
    return " ".join(part for one in value for part in (one if isinstance(one, (tuple, list)) else [one])
                    if isinstance(part, str))  # fmt: skip


def _predict(value: Any, place: Path) -> list[str]:
    (_, data), options = value
    (place / "fuzzed.tif").write_bytes(data)
    return ["predict", str(place / "fuzzed.tif"), "--model", "m", "--output", str(place / "out"), *options]


def _suggest(value: Any, place: Path) -> list[str]:
    (_, data), (suffix, _, labelled), options = value
    (place / "fuzzed.tif").write_bytes(data)
    (place / f"labelled{suffix}").write_bytes(labelled)
    words = ["suggest", str(place / "fuzzed.tif"), "--model", "m", "--output", str(place / "out"), *options]
    return [str(place / f"labelled{suffix}") if word == "LABELLED" else word for word in words]


def _evaluate(value: Any, place: Path) -> list[str]:
    (_, data), (suffix, _, reference), options = value
    (place / "fuzzed.tif").write_bytes(data)
    (place / f"reference{suffix}").write_bytes(reference)
    paths = [str(place / name) for name in ("fuzzed.tif", f"reference{suffix}", "out")]
    return ["evaluate-map", *paths[:2], "--output", paths[2], *options]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers alone
# ---------------------------------------------------------------------------------------------------------------------

WHOLE = st.sampled_from([-1, 0, 1, 2, 7, 64, 1000, 10**6])
WKT = st.sampled_from([None, "", "nonsense", *filter(None, SYSTEMS)])


def _numbers(_: Path) -> Try:
    def areas(value: Any) -> Any:
        from pyproj import CRS

        (height, width), crs, place, block = value
        if crs not in (None, "", "nonsense"):
            crs = CRS.from_user_input(crs).to_wkt()
        ground = ground_areas(Grid(height, width, place, crs))
        return class_areas([(0, 0, np.full(block, 1, np.uint8))], ["a", "b"], ground)

    def windows(value: Any) -> Any:
        (height, width), window_px, overlap_px, band_px, (index, count) = value
        grid = WindowGrid(height, width, window_px, overlap_px)
        return grid.chunks(8), share(cut_bands(grid, band_px), index, count)

    def estimates(value: Any) -> Any:
        counts, mapped = value
        return sample_estimates(np.array(counts), np.array(mapped))

    run = {"areas": areas, "windows": windows, "estimates": estimates}

    def try_one(row: Row, value: tuple[str, Any]) -> None:
        with np.errstate(all="ignore"):
            row.judge(lambda: run[value[0]](value[1]), shown(value))

    return try_one


NUMBERS = st.one_of(
    st.tuples(
        st.just("areas"),
        st.tuples(st.tuples(st.integers(1, 40), st.integers(1, 40)), WKT, st.sampled_from(PLACES), st.just((1, 1))),
    ),
    st.tuples(
        st.just("windows"),
        st.tuples(st.tuples(WHOLE, WHOLE), st.sampled_from([-1, 0, 1, 512, 10**9]), WHOLE, WHOLE, st.just((0, 1))),
    ),
    st.tuples(
        st.just("estimates"),
        st.tuples(
            st.lists(st.lists(st.integers(-1, 9), min_size=2, max_size=2), min_size=1, max_size=3),
            st.lists(st.sampled_from([0, 1, 5, -1, np.nan, np.inf, 1e300]), max_size=3),
        ),
    ),
)

TARGETS = {
    "geo: predict": Target(st.tuples(RASTERS, PREDICT), _commands(_predict), 12),
    "geo: suggest": Target(st.tuples(RASTERS, FEATURES, SUGGEST), _commands(_suggest), 8),
    "geo: evaluate-map": Target(
        st.one_of(
            st.tuples(plain(1), REFERENCES, EVALUATE),
            st.tuples(MAPS, plain(1).map(lambda one: (".tif", *one)), EVALUATE),
            st.tuples(MAPS, REFERENCES, EVALUATE),
        ),
        _commands(_evaluate),
        12,
    ),
    "geo: numbers": Target(NUMBERS, _numbers, 4),
}
