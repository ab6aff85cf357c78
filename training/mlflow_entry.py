"""What MLflow runs to answer with a registered model ("models from code": a script, no pickle).

MLflow copies this file beside the model folder and executes it when the model is logged and loaded, which
is why it is a script and nothing else may import it. The server never comes here: it reads the folder.
"""

from typing import Any

import mlflow
import pandas as pd


class StepinModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """Answers a DataFrame of features."""

    def load_context(self, context: Any) -> None:
        """Read the model folder."""
        from training.uplift import UpliftModel

        self.model = UpliftModel.load(context.artifacts["model_folder"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Columns uplift, lo and hi (90% interval), supported; the index is that of `model_input`."""
        interval = self.model.predict_interval(model_input)
        return pd.DataFrame(
            {
                "uplift": self.model.predict(model_input),
                "lo": interval[:, 0],
                "hi": interval[:, 1],
                "supported": self.model.support(model_input),
            },
            index=model_input.index,
        )


mlflow.models.set_model(StepinModel())
