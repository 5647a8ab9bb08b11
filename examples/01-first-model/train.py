"""Trains a classifier on data that scikit-learn carries, and writes it to the file that is named.

Arguments: the file, and how weakly it is held back (C), 1 if left out.
"""

import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, labels = load_iris(return_X_y=True)
strength = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
model = LogisticRegression(C=strength, max_iter=500).fit(features, labels)
Path(sys.argv[1]).write_bytes(pickle.dumps(model))
