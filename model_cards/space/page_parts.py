"""HTML of the page. Names of classes, files and models are other people's words: all of them are escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scene_file import Scene, pixel_areas
from segmentation_view import ClassShare, Colour

MAX_SHOWN_PX = 1600  # longer side of a picture on the page; downloads keep every pixel


def picture_uri(photo: NDArray[np.uint8]) -> str:
    """A data URI of a photo (H, W, 3), made smaller where it is larger than the page."""
    image = Image.fromarray(photo)
    image.thumbnail((MAX_SHOWN_PX, MAX_SHOWN_PX), Image.Resampling.BILINEAR)
    return _uri(image, "JPEG", quality=88)


def layer_uri(layer: NDArray[np.uint8]) -> str:
    """A data URI of a layer (H, W, 4) without any colour that it does not have."""
    image = Image.fromarray(layer)
    image.thumbnail((MAX_SHOWN_PX, MAX_SHOWN_PX), Image.Resampling.NEAREST)
    return _uri(image, "PNG", compress_level=4)


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def stage(photo: str, layers: Mapping[str, str], size: tuple[int, int]) -> str:
    """Panels side by side, each a photo under a layer whose opacity the page's slider sets.

    Args:
        photo: URI of the photo.
        layers: title -> URI of the layer; "" for none. A single panel shows no title.
        size: (height, width) of the image.
    """
    height, width = size
    panels = []
    for title, layer in layers.items():
        caption = f"<figcaption>{escape(title)}</figcaption>" if len(layers) > 1 else ""
        above = f'<img class="layer" src="{layer}" alt="map, {escape(title)}">' if layer else ""
        panels.append(
            f'<figure>{caption}<div class="ground" style="aspect-ratio:{width}/{height};--shape:{width / height:.4f}">'
            f'<img src="{photo}" alt="the image">{above}</div></figure>'
        )
    return f'<div class="stage panels-{len(layers)}">{"".join(panels)}</div>'


def empty_stage() -> str:
    """What the place of the map says before there is an image."""
    return (
        '<div class="empty"><strong>Your map appears here</strong>'
        "<span>with its legend, the area of each class, and the mask to take along.</span></div>"
    )


def legend(maps: Mapping[str, Sequence[ClassShare]]) -> str:
    """Colours and names of the classes on one map or on several, the largest first, with the share on each map."""
    classes = [ones for ones in zip(*maps.values(), strict=True) if any(one.pixels for one in ones)]
    chips = [
        f'<li><i style="background:{_css(ones[0].colour)}"></i>{escape(ones[0].name)} '
        f"<b>{' | '.join(_percent(one.share) for one in ones)}</b></li>"
        for ones in sorted(classes, key=lambda ones: -sum(one.pixels for one in ones))
    ]
    if len(maps) > 1:
        chips.append(f"<li><b>({escape(' | '.join(maps))})</b></li>")
    return f'<ul class="legend" aria-label="Legend">{"".join(chips)}</ul>'


def disagreement_legend(colour: Colour, share: float) -> str:
    """What the disagreement map shows, in one line."""
    return (
        f'<ul class="legend" aria-label="Legend"><li><i style="background:{_css(colour)}"></i>'
        f"CLIP and DINOv3 differ <b>{_percent(share)}</b></li></ul>"
    )


def table(shares: Sequence[ClassShare], note: str) -> str:
    """Pixels, share, area and dispute of every class; columns that the image does not give are left out."""
    with_area = any(one.square_metres is not None for one in shares)
    disputed = any(one.disputed is not None for one in shares)
    ends = '<th scope=col>Hectares</th><th scope=col class="metres">m²</th>' if with_area else ""
    ends += "<th scope=col>Disputed</th>" if disputed else ""
    rows = "".join(_row(one, disputed) for one in shares)
    head = f"<th scope=col>Class</th><th scope=col>Share</th><th scope=col>Pixels</th>{ends}"
    return (
        f'<div class="areas"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"<p>{escape(note)}</p></div>"
    )


def _row(one: ClassShare, disputed: bool) -> str:
    bar = f'<span class="bar"><span style="width:{one.share:.1%};background:{_css(one.colour)}"></span></span>'
    cells = [
        f'<th scope=row><i style="background:{_css(one.colour)}"></i>{escape(one.name)}</th>',
        f'<td>{bar}<span class="percent">{_percent(one.share)}</span></td>',
        f"<td>{one.pixels:,}</td>",
    ]
    if one.square_metres is not None:
        cells += [f"<td>{one.square_metres / 1e4:,.2f}</td>", f'<td class="metres">{one.square_metres:,.0f}</td>']
    if disputed:
        cells.append(f"<td>{'–' if one.disputed is None else _percent(one.disputed)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def facts(scene: Scene) -> str:
    """What the header of a file says, in one line."""
    kind = f"{scene.num_bands} band{'s' * (scene.num_bands != 1)}{' + alpha' * scene.has_alpha}"
    parts = [f"{scene.width:,} × {scene.height:,} px", f"{kind}, {scene.dtype}"]
    gsd_m = pixel_areas(scene).gsd_m
    parts.append(scene.grid.crs_name or "not georeferenced")
    if gsd_m is not None:
        parts.append(f"{gsd_m:.3g} m pixels")
    return f'<p class="facts"><b>{escape(scene.name)}</b> {escape(" · ".join(parts))}</p>'


def limits(megabytes: float, megapixels: float) -> str:
    """What the page takes and keeps."""
    return (
        f'<p class="limits">Up to {megabytes:g} MB and {megapixels:g} megapixels. Images and maps are deleted '
        "with your session.</p>"
    )


def notice(text: str, kind: str = "info") -> str:
    """One sentence to the user; `kind` is "info", "busy" or "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {kind}" role="{role}">{escape(text)}</div>' if text else ""


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{share * 100:.1f} %"


__all__ = [
    "disagreement_legend",
    "empty_stage",
    "facts",
    "layer_uri",
    "legend",
    "limits",
    "notice",
    "picture_uri",
    "stage",
    "table",
]
