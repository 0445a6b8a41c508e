"""What fine-tuning has to beat, on the same sentences."""

from __future__ import annotations

from bert.data import Data


def measure_baselines(data: Data) -> dict[str, float]:
    """Held-out accuracy by name: always the more frequent training label; TF-IDF with logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, held_out = data
    majority = int(2 * sum(train.labels) >= len(train.labels))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(train.texts, train.labels)
    return {
        "TF-IDF + logistic regression": float(model.score(held_out.texts, held_out.labels)),
        "majority": held_out.labels.count(majority) / len(held_out.labels),
    }
