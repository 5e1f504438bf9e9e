"""UniMatch (arXiv 2208.09910): two strong views and perturbed features, labelled by the student itself."""

from torch import Tensor

from training.batches import Batch
from training.parts.method import scalars
from training.parts.schedules import Progress
from training.parts.self_taught import SelfTaught, weigh


class UniMatch(SelfTaught):
    """Every student on its own; with the two of Co2S this is Co2S without what they teach each other."""

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return self.learn_from_labels(batch)
        logits, own, partner = self.see(batch)
        own, partner, purified = self.purify(own, partner, batch, progress)
        terms = {student: self.terms(views, own[student], partner[student], batch) for student, views in logits.items()}
        totals = {student: weigh(parts) for student, parts in terms.items()}
        return scalars(totals, terms, **self.labeller.confident(own), **purified)
