"""What a training run leaves in the experiment tracker."""

from features.decisions import DecisionTable
from training import registry
from training.config import TrainingConfig
from training.pipeline import Trained

EXPERIMENT = "stepin"


def track(
    trained: Trained, decisions: DecisionTable, config: TrainingConfig, register_as: str | None = None
) -> registry.Run:
    """Record parameters, metrics, the data's digest, the report and the model folder; register if named."""
    settings = config.to_dict()
    policy = {f"policy_{key}": value for key, value in settings.pop("policy").items()}
    about = {key: decisions.about.get(key) for key in ("kind", "outcome", "grace_days", "horizon_days")}
    return registry.log_run(
        EXPERIMENT,
        params={**settings, **policy, **about},
        metrics=trained.evaluation.metrics(),
        tags={
            "data_digest": trained.facts["learned_from"]["data_digest"],
            "model_digest": trained.digest,
            "verdict": trained.evaluation.verdict,
        },
        model_folder=trained.folder,
        register_as=register_as,
    )
