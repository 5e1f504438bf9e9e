"""README.md of a converted folder."""

import pytest
from huggingface_hub import ModelCard

from co2s_hf.convert.cards import KINDS, card
from co2s_hf.convert.proof import FileUse, Proof

PROOF = Proof((FileUse("file.pth: all of it", {"a": ("b",)}, {}),), 1, 12345, ("It is blue.",))


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_the_proof_found_and_the_licence(kind):
    written = ModelCard(card("mine", kind, PROOF))
    assert "# mine" in written.text and "file.pth: all of it" in written.text and "It is blue." in written.text
    licences = {"openai_clip": "mit", "dinov2": "apache-2.0"}
    assert written.data.license == licences.get(kind, "other")
    named = written.data.to_dict().get("license_name")
    assert named == ("dinov3-license" if kind in ("co2s", "dinov3") else None)
