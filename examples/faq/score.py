"""Finds the FAQ entries that match a question.

In:  {"question": "How do I rotate API keys?", "top": 3}      `top` is 1 to 10; 3 if left out
Out: {"matches": [{"id", "question", "answer", "score"}, …]}   best first; the scores of all entries add up to 1
"""

import json
import os
from pathlib import Path

import joblib
import numpy as np
from azureml_inference_server_http.api.aml_response import AMLResponse

LONGEST_QUESTION = 2000

matcher = None
entries = None


def init():
    global matcher, entries
    model = joblib.load(Path(os.environ["AZUREML_MODEL_DIR"]) / "faq.joblib")
    matcher, entries = model["matcher"], model["entries"]


def run(raw_data):
    try:
        question, top = parse(raw_data)
    except ValueError as error:
        return AMLResponse({"error": str(error)}, 400, json_str=True)
    scores = matcher.predict_proba([question])[0]
    best = np.argsort(-scores, kind="stable")[:top]
    return {"matches": [match(matcher.classes_[i], scores[i]) for i in best]}


def match(entry_id, score):
    return {"id": str(entry_id), **entries[entry_id], "score": round(float(score), 4)}


def parse(raw_data):
    """The question and how many matches are wanted; ValueError says what is wrong with the request."""
    try:
        request = json.loads(raw_data)
    except (ValueError, RecursionError):
        raise ValueError("the body must be JSON, sent as application/json") from None
    question = request.get("question") if isinstance(request, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise ValueError('the body must be an object with the text "question"')
    if len(question) > LONGEST_QUESTION:
        raise ValueError(f'"question" may have at most {LONGEST_QUESTION} characters')
    top = request.get("top", 3)
    # A bool is an int to Python.
    if type(top) is not int or not 1 <= top <= 10:
        raise ValueError('"top" must be a whole number from 1 to 10')
    return question, top
