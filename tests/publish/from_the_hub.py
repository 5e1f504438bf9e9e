"""Not a test: what a user does, in a fresh process that knows the Hub but not the package: `from_the_hub.py REPO OUT`.

Runs the examples of the card, word for word, beside an image; then leaves what they made.
"""

import json
import re
import sys
from pathlib import Path


def main(repo, out):
    import torch
    from huggingface_hub import ModelCard

    card = ModelCard.load(repo)
    card.validate()  # by the Hub
    names = {}
    for example in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        exec(example, names)
    torch.save((names["outputs"].logits, names["classes"]), f"{out}/seen.pt")
    facts = {
        "loaded": sorted({"co2s_hf", "training"} & set(sys.modules)),
        "class": type(names["model"]).__name__,
        "masks": {one["label"]: sum(map(bool, one["mask"].tobytes())) for one in names["masks"]},
        "folder": names["folder"],
    }
    Path(out, "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if not Path(entry, "co2s_hf").is_dir()]
    main(*sys.argv[1:])
