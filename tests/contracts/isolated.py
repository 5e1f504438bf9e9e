"""Not a test: what the tests run in a fresh process, `python -I isolated.py OUT SIX_BANDS RETARGETED CLIP CO2S DPT`.

First as a user who has the saved folders but not the package that wrote them, then with the package. All along without
a network and without the libraries that only some of the package needs.
"""

import json
import socket
import sys
import warnings
from pathlib import Path

PACKAGE = {"co2s_hf", "training"}
OPTIONAL = {"datasets", "evaluate", "matplotlib", "open_clip", "timm", "torchvision"}


class Without:
    """An import finder that does not find some packages, as if they were not installed."""

    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def refuse_network():
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(str(arguments))
        raise OSError("no network in this test")

    socket.socket.connect = socket.getaddrinfo = refuse
    return attempts


def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules} & (PACKAGE | OPTIONAL))


def without_package(folder, out):
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

    remote = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(folder, **remote)
    processor = AutoImageProcessor.from_pretrained(folder, **remote)
    models = [auto.from_pretrained(folder, **remote) for auto in (AutoModel, AutoModelForSemanticSegmentation)]
    pixels = torch.load(f"{out}/../pixels.pt")
    with torch.no_grad():
        torch.save([model(pixels).logits for model in models], f"{out}/logits.pt")
    picture = np.random.default_rng(0).integers(0, 256, (300, 470, 3), dtype=np.uint8)
    found = pipeline("image-segmentation", model=folder, **remote)(Image.fromarray(picture))
    np.savez(f"{out}/masks.npz", **{segment["label"]: np.asarray(segment["mask"]) for segment in found})
    models[0].save_pretrained(f"{out}/again")
    processor.save_pretrained(f"{out}/again")
    return {"classes": [type(thing).__name__ for thing in (config, processor, *models)], "loaded": loaded()}


def six_bands_without_package(folder, out):
    import numpy as np
    import torch
    from transformers import AutoImageProcessor, AutoModel

    remote = {"trust_remote_code": True}
    processor, model = (auto.from_pretrained(folder, **remote) for auto in (AutoImageProcessor, AutoModel))
    image = np.random.default_rng(0).integers(0, 65536, (48, 56, 6), dtype=np.uint16)
    with torch.no_grad():
        torch.save(model(**processor(image)).logits, f"{out}/six_bands.pt")
    return model.config.bands


def other_classes_without_package(folder, clip, out):
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    pixels = torch.load(f"{out}/pixels.pt")
    with torch.no_grad():
        torch.save(model(pixels).logits, f"{out}/retargeted.pt")
        model.add_class("d", text_model=clip)
        added = model(pixels)
    return {"classes": model.config.class_names, "shape": added.logits.shape, "votes": added.dinov3_logits is not None}


def with_package(folders):
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the package under test, wherever another may be installed
    import co2s_hf

    after_import = loaded()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = co2s_hf.Co2SForSemanticSegmentation.from_backbones(None, None, ["road", "water"])
    from transformers import AutoModel

    return {
        "loaded": after_import,
        "num_labels": model.config.num_labels,
        "warnings": [str(warning.message) for warning in caught],
        "classes": [str(type(AutoModel.from_pretrained(folder))) for folder in folders.values()],
    }


def main(out, six_bands, retargeted, clip, co2s, dinov2_dpt):
    hidden = PACKAGE | OPTIONAL
    sys.meta_path[:] = [Without(finder, hidden) for finder in sys.meta_path]
    attempts = refuse_network()
    folders = {"co2s": co2s, "dinov2_dpt": dinov2_dpt}
    facts = {"without_package": {kind: without_package(folder, f"{out}/{kind}") for kind, folder in folders.items()}}
    facts["bands"] = six_bands_without_package(six_bands, out)
    facts["other_classes"] = other_classes_without_package(retargeted, clip, out)
    hidden -= PACKAGE
    facts["with_package"] = with_package(folders)
    with open(f"{out}/facts.json", "w") as file:
        json.dump({**facts, "attempts": attempts}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
