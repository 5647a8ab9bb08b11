"""Trains, logs and registers a model in a local MLflow store (SQLite), as a data scientist does. Argument: a folder."""

import sys
from pathlib import Path

import mlflow
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

folder = Path(sys.argv[1]).resolve()
mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
mlflow.create_experiment("digits", artifact_location=(folder / "artifacts").as_uri())
mlflow.set_experiment("digits")
features, labels = load_digits(return_X_y=True)
with mlflow.start_run():
    model = LogisticRegression(max_iter=200).fit(features, labels)
    mlflow.log_metric("accuracy", float(model.score(features, labels)))
    mlflow.sklearn.log_model(model, name="model", registered_model_name="digits", input_example=features[:2])
mlflow.MlflowClient().set_registered_model_alias("digits", "champion", "1")
