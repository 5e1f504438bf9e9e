import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

import page_parts
from co2s_hf.raster.grid import Grid
from scene_file import Scene
from segmentation_view import ClassShare

from .conftest import HOSTILE

ESCAPED = "&lt;img src=x onerror=&quot;window.hacked=1&quot;&gt;"


def share(name="road", pixels=10, fraction=0.5, square_metres=None, disputed=None):
    return ClassShare(name, (1, 2, 3), pixels, fraction, square_metres, disputed)


def opened(uri):
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_other_peoples_words_are_escaped():
    scene = Scene(Path(f"/x/{HOSTILE}"), Grid(1, 1), (), 1)
    pieces = [
        page_parts.legend({HOSTILE: [share(HOSTILE)], "b": [share(HOSTILE)]}),
        page_parts.table([share(HOSTILE)], HOSTILE),
        page_parts.stage("data:", {HOSTILE: "data:", "b": ""}, (1, 1)),
        page_parts.facts(scene),
        page_parts.notice(HOSTILE, "error"),
    ]
    for piece in pieces:
        assert ESCAPED in piece and HOSTILE not in piece


def test_the_legend_shows_what_is_on_the_maps():
    clip, dinov3 = [share("road", 0, 0.0), share("sea")], [share("road", 1, 0.0004), share("sea")]
    assert "road" not in page_parts.legend({"CLIP": clip})
    both = page_parts.legend({"CLIP": clip, "DINOv3": dinov3})
    assert both.index("sea") < both.index("road") and "0.0 % | &lt; 0.1 %" in both.replace("| < ", "| &lt; ")
    assert "(CLIP | DINOv3)" in both


def test_the_table_has_the_columns_that_the_image_gives():
    plain = page_parts.table([share()], "")
    assert "Hectares" not in plain and "Disputed" not in plain and "50.0 %" in plain
    full = page_parts.table([share(square_metres=123456.7, disputed=0.25), share("b", 0, 0, 0.0)], "a note")
    for text in ("Hectares", "12.35", "123,457", "Disputed", "25.0 %", "–", "a note"):
        assert text in full


def test_pictures_are_made_smaller_and_layers_keep_their_colours():
    layer = np.zeros((40, 3000, 4), np.uint8)
    layer[:, ::2] = (10, 20, 30, 255)
    small = opened(page_parts.layer_uri(layer))
    assert small.size == (1600, 21) and {colour for _, colour in small.getcolors()} == {(0, 0, 0, 0), (10, 20, 30, 255)}
    assert opened(page_parts.picture_uri(layer[:, :, :3].copy())).size == (1600, 21)


def test_a_single_panel_needs_no_title():
    assert "figcaption" not in page_parts.stage("p", {"Fused": "l"}, (2, 4))
    two = page_parts.stage("p", {"CLIP": "l", "DINOv3": "m"}, (2, 4))
    assert two.count("<figcaption>") == 2 and two.count('class="layer"') == 2 and "aspect-ratio:4/2" in two
