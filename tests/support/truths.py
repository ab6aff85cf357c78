"""The whole of training on a simulated CRM, and how far it is from the truth."""

from pathlib import Path

import pandas as pd

from features import build_decisions, simulate
from training.against_truth import AgainstTruth, against_truth
from training.pipeline import Trained, train


def judged(deals: int, seed: int, folder: Path, effect: bool = True) -> tuple[Trained, AgainstTruth | None]:
    made = simulate(deals, seed, effect=effect)
    trained = train(build_decisions(made.tables), folder / "model")
    held_out = pd.read_parquet(trained.folder / "held_out.parquet")
    return trained, against_truth(held_out, made.truth, break_even=0.03)
