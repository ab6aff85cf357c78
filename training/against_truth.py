"""A judged model against a simulated CRM's truth. Nothing that trains imports this."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class AgainstTruth:
    """How far the model is from the truth, over supported held-out decisions; effects as fractions.

    NaN where none is supported.
    """

    decisions: int
    true_average: float
    estimated_average: float
    """Doubly robust."""
    naive: float
    """Difference of win rates between decisions with the vendor and without."""
    correlation: float
    """Of predicted and true uplift; NaN where either is constant."""
    error: float
    """Root mean squared error of the predicted uplift."""
    coverage: float
    """Share of decisions whose 90% interval holds the truth."""
    share_of_oracle: float
    """Gain of the advice over the better of always and never, as a share of what an oracle gains over it."""
    advised_share: float
    """Share of all held-out decisions that are advised to step in."""

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def against_truth(held_out: pd.DataFrame, truth: pd.DataFrame, break_even: float) -> AgainstTruth:
    """Compare ``held_out.parquet`` of a model folder with ``truth.parquet`` of a simulated CRM.

    Parameters
    ----------
    break_even : uplift that pays for stepping in, as a fraction
    """
    truths = truth.set_index(["deal_id", "stage"])["uplift"].rename("true_uplift")
    joined = held_out.join(truths, on=["deal_id", "stage"], how="inner")
    assert len(joined) == len(held_out), "every held-out decision has a truth"
    seen = joined[joined["supported"]]
    advised_share = float((joined["advice"] == "step_in").mean())
    if seen.empty:
        nan = float("nan")
        return AgainstTruth(0, nan, nan, nan, nan, nan, nan, nan, advised_share)
    true, predicted = seen["true_uplift"].to_numpy(), seen["uplift"].to_numpy()
    varies = true.std() > 1e-12 and predicted.std() > 1e-12
    outcome, stepped_in = seen["outcome"].to_numpy(), seen["stepped_in"].to_numpy()
    return AgainstTruth(
        decisions=len(seen),
        true_average=float(true.mean()),
        estimated_average=float(seen["doubly_robust_score"].mean()),
        naive=float(outcome[stepped_in].mean() - outcome[~stepped_in].mean()),
        correlation=float(np.corrcoef(predicted, true)[0, 1]) if varies else float("nan"),
        error=float(np.sqrt(np.mean((predicted - true) ** 2))),
        coverage=float(((seen["uplift_lo"] <= true) & (true <= seen["uplift_hi"])).mean()),
        share_of_oracle=_share_of_oracle(true - break_even, (seen["advice"] == "step_in").to_numpy()),
        advised_share=advised_share,
    )


def _share_of_oracle(net: np.ndarray, acts: np.ndarray) -> float:
    fixed = max(net.mean(), 0.0)
    room = np.maximum(net, 0.0).mean() - fixed
    return float(((net * acts).mean() - fixed) / room) if room > 0 else float("nan")
