"""How a model is trained: one frozen object, every number with its unit."""

from dataclasses import asdict, dataclass, field
from typing import Any

from training.policy import Policy


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run."""

    random_state: int = 0
    """The same seed on the same decisions gives the same model."""
    first_share: float = 0.4
    """Share of deals, the oldest, that are learned from only; the newer ones are judged, block by block."""
    judged_blocks: int = 3
    """Blocks of newer deals: each is answered by a model that learned from all blocks before it."""
    n_folds: int = 3
    """Folds of the cross-fitting."""
    draws: int = 200
    """Posterior draws behind the intervals."""
    most_pairs: int = 15
    """Pairs of features that may act together."""
    least_propensity: float = 0.05
    """A decision is supported where P(step in) lies within [this, 1 - this] (Crump et al. 2009)."""
    least_outcomes: int = 40
    """Won, and lost, decisions that each choice needs before anything is learned."""
    n_jobs: int | None = -1
    """Threads for the folds, as joblib counts them; -1 is one a core."""
    policy: Policy = field(default_factory=Policy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and MLflow keep them; without `n_jobs`, which changes no result."""
        values = asdict(self)
        del values["n_jobs"]
        return values
