"""Two versions: one that takes missing values, and one whose author forgot the imputer. Writes both to a folder."""

import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

features, labels = load_wine(return_X_y=True)
good = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(features, labels)
bad = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
for name, model in (("good", good), ("bad", bad)):
    Path(sys.argv[1], f"{name}.pkl").write_bytes(pickle.dumps(model))
