"""Two classifiers on the breast cancer data. Writes v1.pkl and v2.pkl to a folder."""

import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

features, labels = load_breast_cancer(return_X_y=True)
linear = make_pipeline(StandardScaler(), LogisticRegression())
for name, model in (("v1", DecisionTreeClassifier(max_depth=3)), ("v2", linear)):
    Path(sys.argv[1], f"{name}.pkl").write_bytes(pickle.dumps(model.fit(features, labels)))
