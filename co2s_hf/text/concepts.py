"""Class names and what they look like in words: the concept lists of the six datasets of Co2S.

A class is described by several concepts; their text embeddings are averaged into one row per class
(`co2s_hf.text.embeddings`). Strings go into the prompt verbatim, underscores and capitals included, because the
released embeddings were made that way.
"""

from collections.abc import Mapping, Sequence

WHDLD: dict[str, tuple[str, ...]] = {
    "building": (
        "building",
        "residential building",
        "commercial building",
        "industrial building",
        "high-rise",
        "low-rise",
    ),
    "road": ("road", "highway", "arterial road", "residential road", "asphalt road", "concrete road"),
    "pavement": ("pavement", "sidewalk", "pedestrian path", "concrete pavement", "brick pavement", "stone pavement"),
    "vegetation": ("vegetation", "tree", "shrub", "grassland", "farmland", "vegetation patch"),
    "bare soil": ("bare soil", "unvegetated land", "soil exposure", "construction site", "quarry", "desert area"),
    "water": ("water", "lake", "river", "pond", "water body", "water surface", "reservoir"),
}

LOVEDA: dict[str, tuple[str, ...]] = {
    "background": ("background", "undeveloped land", "open space", "background area", "unclassified region"),
    "building": (
        "building",
        "residential building",
        "commercial building",
        "industrial building",
        "public building",
        "high-rise",
    ),
    "road": ("road", "highway", "urban road", "rural road", "asphalt road", "concrete road"),
    "water": ("water", "lake", "river", "pond", "reservoir", "water body"),
    "barren": ("barren", "bare soil", "desert", "construction site", "mining area", "exposed rock"),
    "forest": ("forest", "deciduous forest", "evergreen forest", "mixed forest", "woodland", "tree canopy"),
    "agriculture": ("agriculture", "farmland", "cropland", "orchard", "vineyard", "greenhouse"),
}

POTSDAM: dict[str, tuple[str, ...]] = {
    "impervious_surface": ("impervious_surface", "asphalt", "concrete", "pavement", "roof", "sidewalk"),
    "building": ("building", "residential building", "commercial building", "church", "factory", "historical building"),
    "low_vegetation": ("low_vegetation", "grass", "lawn", "meadow", "pasture", "flower bed"),
    "tree": ("tree", "deciduous tree", "evergreen tree", "tree row", "park tree", "forest edge"),
    "car": ("car", "passenger car", "truck", "van", "bus", "parked vehicle"),
    "clutter": ("clutter", "fence", "wall", "railway", "construction site", "unclassified object"),
}

GID: dict[str, tuple[str, ...]] = {
    "industrial_land": (
        "industrial_land",
        "factory area",
        "industrial park",
        "workshop zone",
        "warehouse area",
        "industrial facility",
    ),
    "urban_residential": (
        "urban_residential",
        "apartment area",
        "high-density housing",
        "urban housing",
        "residential block",
        "city community",
    ),
    "rural_residential": (
        "rural_residential",
        "village housing",
        "countryside settlement",
        "rural homestead",
        "low-rise rural house",
        "scattered village",
    ),
    "traffic_land": (
        "traffic_land",
        "road network",
        "highway",
        "urban road",
        "transport corridor",
        "parking and driveway",
    ),
    "paddy_field": (
        "paddy_field",
        "rice field",
        "paddy rice farmland",
        "flooded field",
        "irrigated paddy",
        "cultivated paddy",
    ),
    "irrigated_land": (
        "irrigated_land",
        "irrigated farmland",
        "canal-irrigated field",
        "well-irrigated cropland",
        "watered field",
        "intensive irrigated land",
    ),
    "dry_cropland": (
        "dry_cropland",
        "rainfed cropland",
        "dry farming field",
        "non-irrigated farmland",
        "upland crop field",
        "seasonal cropland",
    ),
    "garden_plot": (
        "garden_plot",
        "orchard",
        "vegetable garden",
        "economic crop field",
        "plantation",
        "horticultural land",
    ),
    "arbor_woodland": (
        "arbor_woodland",
        "forest land",
        "tree plantation",
        "tall woodland",
        "closed canopy forest",
        "tree-covered area",
    ),
    "shrub_land": (
        "shrub_land",
        "bushland",
        "scrub vegetation",
        "low shrub area",
        "shrub-covered slope",
        "sparse shrub",
    ),
    "natural_grassland": (
        "natural_grassland",
        "native grassland",
        "pasture",
        "meadow",
        "natural herbaceous area",
        "grazing land",
    ),
    "artificial_grassland": (
        "artificial_grassland",
        "man-made grassland",
        "artificial lawn",
        "urban green grass",
        "reclaimed grassland",
        "managed grass field",
    ),
    "river": ("river", "river channel", "stream", "watercourse", "flowing water", "river system"),
    "lake": ("lake", "water lake", "inland lake", "large water body", "open water surface", "natural lake"),
    "pond": ("pond", "fish pond", "small water pond", "artificial pond", "storage pond", "still water body"),
}

MER: dict[str, tuple[str, ...]] = {
    "Martian Soil": (
        "Martian Soil",
        "mars soil",
        "red soil",
        "martian regolith",
        "planetary soil",
        "extraterrestrial soil",
    ),
    "Sands": ("Sands", "martian sand", "fine grains", "loose sand", "desert sand", "silica sand"),
    "Gravel": ("Gravel", "martian gravel", "coarse gravel", "pebbles", "stone fragments", "rocky gravel"),
    "Bedrock": ("Bedrock", "martian bedrock", "solid rock", "bedrock layer", "parent rock", "foundation rock"),
    "Rocks": ("Rocks", "martian rocks", "boulders", "stone blocks", "rock formations", "large rocks"),
    "Tracks": ("Tracks", "rover tracks", "vehicle tracks", "wheel tracks", "trail marks", "path imprints"),
    "Shadows": ("Shadows", "martian shadows", "rock shadows", "shadow regions", "dark areas", "sun shadows"),
    "Unknown": (
        "Unknown",
        "unidentified object",
        "unknown material",
        "ambiguous feature",
        "unclassified",
        "mysterious object",
    ),
    "Background": (
        "Background",
        "martian background",
        "scene background",
        "context area",
        "surroundings",
        "environment background",
    ),
}

CONCEPTS: dict[str, dict[str, tuple[str, ...]]] = {
    "whdld": WHDLD,
    "loveda": LOVEDA,
    "potsdam": POTSDAM,
    "gid": GID,
    "mer": MER,
    "msl": MER,  # the same nine classes of Mars seen by another rover
}


def concepts_for(
    class_names: Sequence[str],
    dataset: str | None = None,
    concepts: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[str, ...]]:
    """Find the concepts of each class: yours first, then the dataset's, then the class name itself.

    Args:
        class_names: The classes, in the order of their ids.
        dataset: Name of a dataset in `CONCEPTS`; every class that `concepts` leaves out must be one of its classes.
        concepts: Your own lists, class name -> concepts. They win over the dataset's. Give one to a class whose name
            reads badly in a sentence: without a dataset a name such as `low_vegetation` is used verbatim.

    Returns:
        One tuple of concepts per class, none of them empty.

    Raises:
        ValueError: Unknown dataset, a class that the dataset does not have, an entry of `concepts` for a class that
            is not in `class_names`, or an entry that is no list of strings.
    """
    own = {} if concepts is None else concepts
    unused = sorted(own.keys() - set(class_names))
    if unused:
        raise ValueError(
            f"concepts are given for {unused}, which are no classes here; the classes: {list(class_names)}."
        )
    known = _known_concepts(dataset)
    return [_concepts_of(name, own, dataset, known) for name in class_names]


def _known_concepts(dataset: str | None) -> dict[str, tuple[str, ...]]:
    if dataset is None:
        return {}
    if dataset not in CONCEPTS:
        raise ValueError(
            f"there are no concepts for a dataset named {dataset!r}; known: {sorted(CONCEPTS)}. "
            "Leave the dataset out, or pass your own concepts."
        )
    return CONCEPTS[dataset]


def _concepts_of(
    name: str, own: Mapping[str, Sequence[str]], dataset: str | None, known: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if name in own:
        words = own[name]
        if isinstance(words, str) or not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"the concepts of {name!r} must be a list of one or more strings, found {words!r}.")
        return tuple(words)
    if dataset is None:
        return (name,)
    if name not in known:
        raise ValueError(
            f"dataset {dataset!r} has no class {name!r}; its classes: {list(known)}. "
            "Spell the class as there, or pass your own concepts for it."
        )
    return known[name]
