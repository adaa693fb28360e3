"""A made-up corpus: each topic prefers some words of a common vocabulary."""

from __future__ import annotations

import itertools

import numpy as np

TOPICS = ("rivers", "snow", "soils", "storms")
SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "ro", "su", "ta", "vi")
PREFERENCE = 3.0  # how many times likelier than elsewhere a topic's own words are
WORDS_OF_A_TEXT = (20, 60)


def texts(documents: int = 2000, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return so many texts and the topic of each.

    The same for each call with the same arguments: driver and workers make it for themselves.
    """
    rng = np.random.default_rng(seed)
    vocabulary = np.array(["".join(word) for word in itertools.product(SYLLABLES, repeat=3)])
    frequency = 1 / np.arange(1, len(vocabulary) + 1)  # Zipf's law
    likelihoods = []
    for _ in TOPICS:
        own = rng.random(len(vocabulary)) < 0.25
        likelihood = frequency * np.where(own, PREFERENCE, 1)
        likelihoods.append(likelihood / likelihood.sum())
    topics = rng.integers(len(TOPICS), size=documents)
    lengths = rng.integers(*WORDS_OF_A_TEXT, size=documents)
    written = [
        " ".join(rng.choice(vocabulary, length, p=likelihoods[topic]))
        for topic, length in zip(topics, lengths, strict=True)
    ]
    return written, [TOPICS[topic] for topic in topics]
