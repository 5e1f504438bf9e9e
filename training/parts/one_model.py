"""What a method answers the loop when it consists of one model and no moving average."""

from typing import Any

from torch import nn

from training.parts.schedules import Progress


class OneModel:
    """The model that trains is the one that is evaluated and saved, and nothing else needs to be remembered."""

    model: nn.Module

    def after_step(self, progress: Progress) -> None:
        """Do nothing: there is no moving average."""

    def saved(self) -> nn.Module:
        """Return the model to evaluate and to save."""
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs besides the model: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept the empty state."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state of its own, but the checkpoint holds {sorted(state)}")
