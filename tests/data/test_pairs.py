"""What names of images and masks have in common."""

import pytest

from co2s_hf.data.pairs import Affix, common_affixes, looks_like


@pytest.mark.parametrize(
    ("images", "masks", "found"),
    [
        (["a", "b"], ["a", "b"], [(Affix(), Affix())]),
        (["a", "b"], ["a_m", "b_m"], [(Affix(), Affix(tail="_m"))]),
        (["s/a", "t/b"], ["s/m_a", "t/m_b"], [(Affix(), Affix(head="m_"))]),
        (["a_1", "a_2"], ["a_1_x", "a_2_x"], [(Affix(), Affix(tail="_x"))]),
        (["a", "b"], ["a_m", "b_m", "a_c", "b_c"], [(Affix(), Affix(tail="_m")), (Affix(), Affix(tail="_c"))]),
        (["a", "b"], ["c", "d"], []),
        (["a_1"], ["b_1"], []),
    ],
)
def test_affixes(images, masks, found):
    assert common_affixes(images, masks) == found


@pytest.mark.parametrize(
    ("stem", "others", "said"),
    [
        ("Tile", ["tile"], "tile differs in letter case only"),
        ("tile_1_color", ["tile_1", "tile", "color2"], "tile_1 is part of the name"),
        ("tile10", ["tile1"], None),
        ("tile", [], None),
    ],
)
def test_names_that_are_near(stem, others, said):
    assert looks_like(stem, others) == said or looks_like(stem, others).startswith(said)
