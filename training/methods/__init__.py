"""One file per paper; METHODS names them for the recipes."""

from training.methods.co2s import Co2S
from training.methods.fixmatch import FixMatch
from training.methods.rs_mtdf import RSMTDF
from training.methods.semiearth import SemiEarth
from training.methods.supervised import Supervised
from training.methods.unimatch import UniMatch
from training.methods.unimatch_v2 import UniMatchV2

METHODS = {
    "supervised": Supervised,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
    "rs_mtdf": RSMTDF,
    "semiearth": SemiEarth,
    "co2s": Co2S,
}
