"""One file per paper; METHODS names them for the recipes."""

from training.methods.co2s import Co2S
from training.methods.supervised import Supervised

METHODS = {"supervised": Supervised, "co2s": Co2S}
