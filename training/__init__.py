"""From decisions to a judged, registered model.

Names are loaded when first asked for, so that ``training.scorecard`` costs numpy at most.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.pipeline import train as train
    from training.policy import Policy as Policy
    from training.scorecard import Scorecard as Scorecard
    from training.uplift import UpliftModel as UpliftModel

_HOMES = {
    "Policy": "training.policy",
    "Scorecard": "training.scorecard",
    "UpliftModel": "training.uplift",
    "train": "training.pipeline",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'training' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
