"""Trains the question matcher on faq.json and writes model/faq.joblib.

Two numbers say how good it is. "New questions" are paraphrases that the model never sees; they were written by
the authors of the FAQ, so they are friendlier than strangers' questions. "Left out" hides each known phrasing in
turn and is the harder test: phrasings of one entry often share no word, and the model matches words.
"""

import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

HERE = Path(__file__).resolve().parent


def matcher():
    """Words and pairs of words for meaning, pieces of words for inflections and slips of the finger."""
    return make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LogisticRegression(C=100, max_iter=1000),
    )


def report(name, ranks):
    """Prints how often the right entry was first, and among the first three."""
    ranks = np.array(ranks)
    print(f"{name}: right {np.mean(ranks == 0):.1%}, among the first three {np.mean(ranks < 3):.1%} of {len(ranks)}")


def ranks_of(model, questions):
    """The place of the right entry in the model's answer to each (id, question)."""
    probabilities = model.predict_proba([text for _, text in questions])
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return [list(model.classes_[row]).index(entry) for row, (entry, _) in zip(order, questions)]


def main():
    faq = json.loads((HERE / "faq.json").read_text(encoding="utf-8"))
    known = [(entry["id"], text) for entry in faq for text in entry["questions"]]
    new = [(entry["id"], text) for entry in faq for text in entry["held_out"]]

    def fit(questions):
        return matcher().fit([text for _, text in questions], [entry for entry, _ in questions])

    left_out = []
    folds = max(len(entry["questions"]) for entry in faq)
    place = {text: i for entry in faq for i, text in enumerate(entry["questions"])}
    for fold in range(folds):
        hidden = [q for q in known if place[q[1]] == fold]
        left_out += ranks_of(fit([q for q in known if place[q[1]] != fold]), hidden)

    model = fit(known)
    report("new questions", ranks_of(model, new))
    report("left out", left_out)

    # A memory address that the vectorizers keep; without it the same input makes the same file.
    for _, vectorizer in model[0].transformer_list:
        vars(vectorizer).pop("_stop_words_id", None)

    entries = {entry["id"]: {"question": entry["questions"][0], "answer": entry["answer"]} for entry in faq}
    (HERE / "model").mkdir(exist_ok=True)
    joblib.dump({"matcher": model, "entries": entries}, HERE / "model" / "faq.joblib", compress=3)


if __name__ == "__main__":
    main()
