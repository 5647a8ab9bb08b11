"""Trains a classifier on data that scikit-learn carries, and writes it to the file that is named."""

import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, labels = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(features, labels)
Path(sys.argv[1]).write_bytes(pickle.dumps(model))
