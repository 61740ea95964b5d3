"""Trains the tutorials' second model on the same data as the first: a random forest, in model/diabetes.joblib."""

from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent


def main():
    people, progress = load_diabetes(return_X_y=True, scaled=False)
    train_x, test_x, train_y, test_y = train_test_split(people, progress, test_size=0.25, random_state=0)
    model = RandomForestRegressor(n_estimators=50, min_samples_leaf=5, random_state=0).fit(train_x, train_y)
    print(f"forest: R² {model.score(test_x, test_y):.2f} on {len(test_y)} people that it never saw")
    (HERE / "model").mkdir(exist_ok=True)
    joblib.dump({"name": "forest", "estimator": model}, HERE / "model" / "diabetes.joblib", compress=3)


if __name__ == "__main__":
    main()
