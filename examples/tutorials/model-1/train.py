"""Trains the tutorials' first model on scikit-learn's diabetes data (part of the package) and writes
model/diabetes.joblib: a ridge regression of the progress of the disease after one year.
"""

from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent


def main():
    people, progress = load_diabetes(return_X_y=True, scaled=False)
    train_x, test_x, train_y, test_y = train_test_split(people, progress, test_size=0.25, random_state=0)
    model = make_pipeline(StandardScaler(), Ridge()).fit(train_x, train_y)
    print(f"ridge: R² {model.score(test_x, test_y):.2f} on {len(test_y)} people that it never saw")
    (HERE / "model").mkdir(exist_ok=True)
    joblib.dump({"name": "ridge", "estimator": model}, HERE / "model" / "diabetes.joblib", compress=3)


if __name__ == "__main__":
    main()
