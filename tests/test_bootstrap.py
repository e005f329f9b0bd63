"""The paired bootstrap: its intervals cover, it pairs, it resamples sessions and seeds."""

import numpy as np
import pytest

from gru4rec_np.ops import bootstrap
from gru4rec_np.ops.bootstrap import interval, resampled_means


def draw(rng, sessions, seeds=1, of_session=0.25, of_seed=0.0, better=0.0):
    """Two methods' values whose true means differ by `better`, and each case's session."""
    lengths = 1 + rng.geometric(0.3, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    both = rng.normal(0, 0.3, sessions)[session]  # a hard session is hard for both
    values = []
    for gain in (0, better):
        own = rng.normal(0, of_session, sessions)[session]
        of_seeds = rng.normal(0, of_seed, (seeds, 1))
        noise = rng.normal(0, 0.2, (seeds, len(session)))
        values.append(0.5 + gain + both + own + of_seeds + noise)
    return values, session


def covers(values, session, truth, seed):
    means = resampled_means(values, session, 400, seed)
    low, high = interval(means[:, 1] - means[:, 0])
    return low <= truth <= high


@pytest.mark.parametrize("seeds, of_seed", [(1, 0.0), (4, 0.0), (4, 0.03)])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds, of_seed):
    rng = np.random.default_rng(seeds)
    n = 300
    hits = sum(
        covers(*draw(rng, 150, seeds, of_seed=of_seed, better=0.1), 0.1, i) for i in range(n)
    )
    # 0.95, three standard deviations of 300 trials being 0.038; 4 seeds are few.
    assert 0.90 <= hits / n <= 0.995, hits / n


def test_drawing_cases_instead_of_sessions_would_not_cover():
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(200):
        values, session = draw(rng, 150, better=0.1)
        hits += covers(values, np.arange(len(session)), 0.1, i)
    assert hits / 200 < 0.88


def test_the_variance_between_seeds_is_counted_in_full():
    rng = np.random.default_rng(3)
    session = np.arange(400)
    found = []
    for i in range(300):
        of_seeds = rng.normal(0, 1, (3, 1))
        found.append(resampled_means([np.tile(of_seeds, 400)], session, 200, i).var())
    assert np.mean(found) == pytest.approx(1 / 3, rel=0.2)


def test_identical_methods_do_not_differ():
    values, session = draw(np.random.default_rng(1), 50)
    means = resampled_means([values[0], values[0]], session, 100)
    assert (means[:, 0] == means[:, 1]).all()
    assert interval(means[:, 0] - means[:, 1]).tolist() == [0, 0]


def test_a_large_difference_is_found_and_pairing_finds_a_small_one():
    rng = np.random.default_rng(2)
    values, session = draw(rng, 300, better=0.3)
    means = resampled_means(values, session)
    assert interval(means[:, 1] - means[:, 0])[0] > 0.2
    # The same sessions are hard for both: the difference is far surer than either mean.
    hard = rng.normal(0, 1, 300)[session]
    values = [hard[None], hard[None] + 0.05]
    means = resampled_means(values, session)
    low, high = interval(means[:, 1] - means[:, 0])
    assert low == pytest.approx(0.05) and high == pytest.approx(0.05)
    assert interval(means[:, 0])[1] - interval(means[:, 0])[0] > 0.1


def test_the_mean_is_over_cases_of_the_sessions_drawn():
    """Against the definition, session by session; and blocks make no difference."""
    values, session = draw(np.random.default_rng(4), 7)
    means = resampled_means(values, session, 5, seed=9)
    drawn = np.random.default_rng(9).integers(0, 7, (5, 7))
    for r in range(5):
        cases = np.concatenate([np.flatnonzero(session == s) for s in drawn[r]])
        assert means[r] == pytest.approx([v[0, cases].mean() for v in values], abs=1e-12)


def test_deterministic_by_seed(monkeypatch):
    values, session = draw(np.random.default_rng(5), 40, seeds=3)
    one = resampled_means(values, session, 50, seed=1)
    assert (one == resampled_means(values, session, 50, seed=1)).all()
    assert (one != resampled_means(values, session, 50, seed=2)).any()
    monkeypatch.setattr(bootstrap, "COUNTS_AT_ONCE", 200)
    assert resampled_means(values, session, 50, seed=1).mean(0) == pytest.approx(
        one.mean(0), abs=0.05
    )


def test_one_session_has_no_spread_and_no_case_is_an_error():
    means = resampled_means([np.array([[1.0, 0.0]])], np.zeros(2), 10)
    assert (means == 0.5).all()
    with pytest.raises(ValueError, match="no cases"):
        resampled_means([np.empty((1, 0))], np.empty(0))
