"""Predicts the progress of diabetes within a year.

In:  {"data": [[age, sex, bmi, blood pressure, s1, s2, s3, s4, s5, s6], …]}
Out: {"model": "forest", "predictions": [number, …]}
"""

import json
import os

import joblib
from azureml_inference_server_http.api.aml_response import AMLResponse

name = None
estimator = None


def init():
    global name, estimator
    # AZUREML_MODEL_DIR is the folder that holds what `model.path` of the deployment names: here the folder `model`.
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "diabetes.joblib")
    loaded = joblib.load(path)
    name, estimator = loaded["name"], loaded["estimator"]
    print(f"model {name} is loaded")


def run(raw_data):
    try:
        predictions = estimator.predict(json.loads(raw_data)["data"])
    except (ValueError, TypeError, KeyError) as error:
        return AMLResponse({"error": f"the body must be {{\"data\": [[10 numbers], …]}}: {error}"}, 400, json_str=True)
    return {"model": name, "predictions": [round(float(value), 1) for value in predictions]}
