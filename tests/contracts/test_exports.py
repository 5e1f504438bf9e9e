"""The exported names are those meant to be used, and they exist."""

import importlib
import pkgutil
import re
from types import ModuleType

import pytest

import co2s_hf

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(co2s_hf.__path__, "co2s_hf.")
    if not module.name.endswith("__main__")
)


def own_public_names(module):
    """Public names bound in a module to things that the package itself defines."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {
        name
        for name, value in values.items()
        if not isinstance(value, ModuleType) and getattr(value, "__module__", "").startswith("co2s_hf")
    }


def test_package_exports():
    assert co2s_hf.__all__ == sorted(co2s_hf.__all__)
    assert set(co2s_hf.__all__) == own_public_names(co2s_hf) | {"__version__"}


def test_the_flat_files_are_found():
    assert {"co2s_hf.class_texts_co2s", "co2s_hf.modeling_co2s", "co2s_hf.text.embeddings"} <= set(MODULES)
    assert {"co2s_hf.modeling_dinov2_dpt", "co2s_hf.convert.dinov2_dpt"} <= set(MODULES)


@pytest.mark.parametrize("name", ["co2s_hf", *MODULES])
def test_every_exported_name_exists(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert exported == sorted(set(exported))
    assert [missing for missing in exported if missing not in vars(module)] == []


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", co2s_hf.__version__)
