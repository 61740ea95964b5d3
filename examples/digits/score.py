"""Classifies images of handwritten digits.

In:  {"images": [[64 numbers from 0 to 16, row by row], …]}     1 to 100 images
Out: {"model": "svc", "digits": [{"digit": 7, "probabilities": [10 numbers]}, …]}
The environment variable DIGITS_MODEL chooses the model: `logistic` or `svc`.
"""

import json
import os
from pathlib import Path

import joblib
import numpy as np
from azureml_inference_server_http.api.aml_response import AMLResponse

MOST_IMAGES = 100

name = None
classifier = None


def init():
    global name, classifier
    name = os.environ.get("DIGITS_MODEL", "logistic")
    classifier = joblib.load(Path(os.environ["AZUREML_MODEL_DIR"]) / f"{name}.joblib")


def run(raw_data):
    try:
        images = parse(raw_data)
    except ValueError as error:
        return AMLResponse({"error": str(error)}, 400, json_str=True)
    probabilities = classifier.predict_proba(images)
    return {"model": name, "digits": [describe(row) for row in probabilities]}


def describe(row):
    return {"digit": int(classifier.classes_[row.argmax()]), "probabilities": [round(float(p), 4) for p in row]}


def parse(raw_data):
    """The images as rows of a matrix; ValueError says what is wrong with the request."""
    try:
        request = json.loads(raw_data)
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON, sent as application/json") from None
    images = request.get("images") if isinstance(request, dict) else None
    if not isinstance(images, list) or not 1 <= len(images) <= MOST_IMAGES:
        raise ValueError(f'the body must be an object with "images", a list of 1 to {MOST_IMAGES} images')
    for i, image in enumerate(images):
        if not isinstance(image, list) or len(image) != 64 or not all(is_grey(value) for value in image):
            raise ValueError(f"images[{i}] must be a list of 64 numbers from 0 to 16")
    return np.array(images, dtype=float)


def is_grey(value):
    # NaN, which Python's JSON takes, fails the comparison; a bool is an int to Python.
    return type(value) in (int, float) and 0 <= value <= 16
