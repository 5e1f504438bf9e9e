"""What the owner of the page decides, by environment variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmenter import ModelError


@dataclass(frozen=True)
class Settings:
    """What the owner of the page decides.

    Attributes:
        models: ids or folders to choose from.
        any_model: whether users may enter others. A model brings code, and the machine of the page runs it.
        max_megabytes: of an upload.
        max_megapixels: of an upload.
    """

    models: Sequence[str] = ()
    any_model: bool = False
    max_megabytes: float = 50
    max_megapixels: float = 16

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read `CO2S_MODEL`, `CO2S_ANY_MODEL`, `CO2S_MAX_MB` and `CO2S_MAX_MEGAPIXELS`.

        On a Space of the Hub, which sets `SPACE_ID`, only the named models are run unless its owner says otherwise.
        """
        names = [name.strip() for name in environment.get("CO2S_MODEL", "").split(",")]
        on_a_space = "SPACE_ID" in environment
        return cls(
            models=[name for name in names if name],
            any_model=environment.get("CO2S_ANY_MODEL", "0" if on_a_space else "1") == "1",
            max_megabytes=float(environment.get("CO2S_MAX_MB", cls.max_megabytes)),
            max_megapixels=float(environment.get("CO2S_MAX_MEGAPIXELS", cls.max_megapixels)),
        )

    def check_model(self, name: str) -> None:
        """`ModelError` unless this model may be run here."""
        if not name:
            raise ModelError("Enter a model: user/model on the Hub, or a folder.")
        if name not in self.models and not self.any_model:
            offered = (
                f"offers {', '.join(self.models)}" if self.models else "has no model yet: its owner sets CO2S_MODEL"
            )
            raise ModelError(f"This page {offered}. Duplicate the Space to run other models.")


__all__ = ["Settings"]
