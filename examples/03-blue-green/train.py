"""Two regressors on the diabetes data. Writes v1.pkl and v2.pkl to a folder."""

import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

features, target = load_diabetes(return_X_y=True)
for name, model in (("v1", Ridge()), ("v2", HistGradientBoostingRegressor(max_iter=30))):
    Path(sys.argv[1], f"{name}.pkl").write_bytes(pickle.dumps(model.fit(features, target)))
