"""Which answers become pairs, for `preference` and for self-play alike."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep._ranking import best_with_worst

NAN = math.nan


@pytest.mark.parametrize(
    ("answers", "k", "margin", "pairs"),
    [
        ([("a", 0.0), ("b", 1.0), ("c", 0.5)], 1, 0.0, [("b", "a")]),
        ([("a", 0.0), ("b", 1.0), ("c", 0.5), ("d", 0.4)], 2, 0.0, [("b", "a"), ("c", "d")]),
        ([("a", 0.0), ("b", 1.0), ("c", 0.5)], 3, 0.0, [("b", "a")]),  # none stands in two pairs
        (
            [("a", 0.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)],
            2,
            0.0,
            [("b", "d")],
        ),  # no tie is a pair
        ([("a", 0.1), ("b", 1.0)], 1, 0.9, []),  # more than the margin
        ([("a", 0.0), ("b", 1.0)], 1, 0.9, [("b", "a")]),
        ([("a", 1.0), ("b", 1.0)], 1, 0.0, []),
        ([("a", NAN), ("b", 1.0), ("c", 0.0)], 1, 0.0, [("b", "c")]),
        ([("a", NAN), ("b", 1.0)], 1, 0.0, []),
        (
            [("", 0.0), (" \n", 0.0), ("b", 1.0), ("c", 0.5)],
            1,
            0.0,
            [("b", "c")],
        ),  # silence is no answer
        ([("a", 0.0), ("a", 1.0)], 1, 0.0, []),  # one text, by a reward that is not sure
        ([("a", 0.0), ("a", 1.0), ("b", 0.7), ("b", 0.7)], 1, 0.0, [("b", "a")]),
        (
            [("b", 1.0), ("c", 1.0), ("a", 0.0), ("d", 0.0)],
            1,
            0.0,
            [("b", "d")],
        ),  # ties: as sampled
        ([("a", 1.0)], 1, 0.0, []),
        ([], 1, 0.0, []),
    ],
)
def test_pairs_of_a_prompt(answers, k, margin, pairs):
    assert best_with_worst(answers, k, margin)[0] == pairs


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d", "e", " "]),
            st.sampled_from([0.0, 0.1, 0.5, 1.0, NAN]),
        )
    ),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_whatever_the_answers_are(answers, most, margin):
    pairs, different = best_with_worst(answers, most, margin)
    scores = {text: [s for t, s in answers if t == text and s == s] for text, _ in answers}
    mean = {text: sum(s) / len(s) for text, s in scores.items() if s and text.strip()}
    assert different == len(mean)
    used = list(itertools.chain.from_iterable(pairs))
    assert len(used) == len(set(used)) and set(used) <= set(mean) and len(pairs) <= most
    gaps = [mean[better] - mean[worse] for better, worse in pairs]
    assert all(gap > margin for gap in gaps) and gaps == sorted(gaps, reverse=True)
    # no two of those that are left would make another pair
    if len(pairs) < most:
        left = [mean[text] for text in mean if text not in used]
        assert not left or max(left) - min(left) <= margin
