"""Who may import whom: training -> co2s_hf, sub-folders -> flat files, flat files -> torch and transformers."""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPS_WITH = {"torch", "transformers", "numpy", "PIL"} | sys.stdlib_module_names
LIBRARIES = {"evaluate", "datasets", "accelerate", "transformers"}
IMAGE_READERS = {"PIL", "rasterio", "cv2", "imageio", "skimage", "tifffile"}
RASTER = "co2s_hf/raster/"
# Where a library may be imported. The image processor accepts PIL images, the others draw; they open no file.
HOMES = {
    "PIL": (
        RASTER,
        "co2s_hf/image_processing_co2s.py",
        "co2s_hf/data/show.py",
        "co2s_hf/geo/quicklook.py",
        "co2s_hf/geo/suggestion_files.py",
        "model_cards/space/page_parts.py",
        "model_cards/space/scene_file.py",
    ),
    "gradio": ("model_cards/space/",),
    "matplotlib": ("training/report.py", "co2s_hf/geo/evaluation_report.py"),
    "onnx": ("co2s_hf/publish/sliding_graph.py",),
    "onnx_ir": ("co2s_hf/publish/export.py", "co2s_hf/publish/sliding_graph.py"),
    "onnxruntime": ("co2s_hf/publish/export.py",),
    "open_clip": ("co2s_hf/text/",),
    "pyogrio": (RASTER,),
    "pyproj": (RASTER,),
    "rasterio": (RASTER,),
    "shapely": (RASTER, "co2s_hf/geo/polygons.py", "co2s_hf/geo/references.py"),  # geometry, no files
    "skimage": ("training/purification/regions.py",),  # superpixels; it opens no file there
    "torchao": ("co2s_hf/publish/export.py",),
}


@dataclass(frozen=True)
class Import:
    file: str  # relative to the root, with forward slashes
    target: str  # absolute dotted name of the imported module
    written: str  # as it stands in the file: ".x", "torch.nn"
    nested: bool  # inside a function, class, `if` or `try`

    @property
    def top(self):
        return self.target.partition(".")[0]

    def __str__(self):
        return f"{self.file} imports {self.target}"


def is_module(root, dotted):
    path = root.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of(path, root):
    """Every import of a file; `from package import module` counts as an import of the module."""
    file, tree = path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(root).parts[:-1]
    found = []
    for node in ast.walk(tree):
        nested = node not in tree.body
        if isinstance(node, ast.Import):
            found += [Import(file, alias.name, alias.name, nested) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            written = "." * node.level + (node.module or "")
            for alias in node.names:
                dotted = f"{module}.{alias.name}"
                found.append(Import(file, dotted if is_module(root, dotted) else module, written, nested))
    return found


def imports_under(*folders, root=ROOT):
    return [
        found
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        for found in imports_of(path, root)
    ]


def is_flat(file):
    return file.startswith("co2s_hf/") and file.count("/") == 1 and not Path(file).name.startswith("__")


@pytest.fixture(scope="module")
def package():
    return imports_under("co2s_hf")


@pytest.fixture(scope="module")
def training():
    return imports_under("training")


def test_the_files_are_found(package, training):
    files = {found.file for found in [*package, *training]}
    flat = {file for file in files if is_flat(file)}
    assert {"co2s_hf/class_texts_co2s.py", "co2s_hf/configuration_co2s.py", "co2s_hf/guidance_head_co2s.py"} <= flat
    assert {"co2s_hf/modeling_dinov2_dpt.py", "co2s_hf/pretrained_backbones.py", "co2s_hf/segmentation.py"} <= flat
    assert {"co2s_hf/raster/read.py", "co2s_hf/text/embeddings.py", "training/methods/co2s.py"} <= files
    assert any(file.startswith("training/parts/") for file in files)


def test_imports_are_read_as_python_reads_them(tmp_path):
    for name in ("co2s_hf/__init__.py", "co2s_hf/flat.py", "co2s_hf/data/__init__.py", "co2s_hf/data/images.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "co2s_hf" / "data" / "a.py"
    path.write_text(
        "import os.path\nfrom ..flat import f\nfrom . import images\nfrom .images import g\n"
        "def f():\n    from co2s_hf import data\n"
    )
    found = [(one.target, one.written, one.nested) for one in imports_of(path, tmp_path)]
    assert found == [
        ("os.path", "os.path", False),
        ("co2s_hf.flat", "..flat", False),
        ("co2s_hf.data.images", ".", False),
        ("co2s_hf.data.images", ".images", False),
        ("co2s_hf.data", "co2s_hf", True),
    ]


def test_flat_files_import_what_every_user_has(package):
    wrong = [
        str(found)
        for found in package
        if is_flat(found.file)
        and not found.written.startswith(".")
        and found.top not in SHIPS_WITH
        and found.target != "huggingface_hub.dataclasses"
    ]
    assert wrong == []


def test_flat_files_import_each_other_by_one_dot_at_module_level(package):
    siblings = [found for found in package if is_flat(found.file) and found.written.startswith(".")]
    assert siblings
    wrong = [
        str(found)
        for found in siblings
        if found.nested or found.written.count(".") != 1 or not is_flat(found.target.replace(".", "/") + ".py")
    ]
    assert wrong == []
    assert [str(found) for found in package if is_flat(found.file) and found.nested] == []


def test_sub_folders_import_flat_files_pixels_and_themselves(package):
    """Every sub-folder may import the raster room, which imports itself alone; flat files import no sub-folder."""
    wrong = []
    for found in package:
        folder = found.file.split("/")[1:-1]
        inside = found.target.split(".")[1:]  # below co2s_hf
        if folder and found.top == "co2s_hf" and inside and inside[0] != folder[0]:
            if inside[0] != "raster" and not is_flat("/".join(["co2s_hf", *inside]) + ".py"):
                wrong.append(str(found))
    assert wrong == []


def test_the_package_never_imports_training(package):
    assert [str(found) for found in package if found.top in ("training", "tests")] == []


def test_methods_do_not_import_methods(training):
    wrong = [
        str(found)
        for found in training
        if found.file.startswith("training/methods/")
        and found.target.startswith("training.methods")
        and not found.file.endswith("__init__.py")
    ]
    assert wrong == []


def test_parts_import_no_method_and_no_loop(training):
    below = ("training.parts", "training.batches", "training.views", "co2s_hf.")
    wrong = [
        str(found)
        for found in training
        if found.file.startswith("training/parts/")
        and found.top in ("training", "co2s_hf")
        and not found.target.startswith(below)
    ]
    assert wrong == []


def test_batches_and_views_import_no_part(training):
    files = tuple(f"training/{name}.py" for name in ("batches", "pools", "reader", "tile_cache", "views"))
    assert [str(found) for found in training if found.file in files and ".parts" in found.target] == []


def test_purification_imports_no_method_and_no_loop(training):
    files = [found for found in training if found.file.startswith("training/purification/")]
    allowed = ("training.purification", "training.parts", "training.views")
    inside = [found for found in files if found.top == "training"]
    assert inside and [str(found) for found in inside if not found.target.startswith(allowed)] == []


def test_some_libraries_have_one_home(package, training):
    wrong = [
        str(found)
        for found in [*package, *training, *imports_under("model_cards")]
        if (found.top in HOMES or found.top in IMAGE_READERS) and not found.file.startswith(HOMES.get(found.top, "-"))
    ]
    assert wrong == []


def test_the_raster_room_imports_itself_alone(package):
    inside = [found for found in package if found.file.startswith(RASTER) and found.top == "co2s_hf"]
    assert inside and [str(found) for found in inside if not found.target.startswith("co2s_hf.raster")] == []


def test_the_space_reads_images_by_the_package_and_knows_models_by_their_names():
    space = imports_under("model_cards")
    assert any(found.target == "transformers" for found in space)
    ours = [found for found in space if found.top in ("co2s_hf", "training", "tests")]
    assert ours and [str(found) for found in ours if not found.target.startswith("co2s_hf.raster")] == []
    assert {found.file for found in space if found.top == "gradio"} == {"model_cards/space/app.py"}


def test_files_are_decoded_in_one_room():
    calls = ("Image.open", "PIL.Image.open", "rasterio.open", "rasterio.MemoryFile")
    opened = [
        path.relative_to(ROOT).as_posix()
        for folder in ("co2s_hf", "training", "model_cards")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in calls
    ]
    assert opened and [file for file in opened if not file.startswith(RASTER)] == []


def test_no_file_of_training_shadows_a_library():
    # Run as a script, training/train_semi.py has its own folder first on the path.
    names = {path.stem for path in (ROOT / "training").iterdir()}
    assert names and not names & LIBRARIES


def test_no_loader_runs_code_of_a_model():
    loads = [
        (
            f"{path.relative_to(ROOT)}: {ast.unparse(node)[:60]}",
            {word.arg: ast.unparse(word.value) for word in node.keywords},
        )
        for folder in ("co2s_hf", "training")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto")
        if ast.unparse(node.func).endswith(".from_pretrained")
    ]
    assert loads and [where for where, words in loads if words.get("trust_remote_code") != "False"] == []
