"""The Poisson bootstrap."""

import numpy as np
import pytest

from tasks.core.evaluation.bootstrap import POISSON_WEIGHTS, REPLICATES, PoissonBootstrap, bootstrap_estimate
from tasks.core.evaluation.intervals import Estimate


def test_weights_are_poisson_distributed_with_mean_one() -> None:
    shares = np.bincount(POISSON_WEIGHTS.astype(int)) / len(POISSON_WEIGHTS)
    assert shares[:5] == pytest.approx([0.36788, 0.36788, 0.18394, 0.06131, 0.01533], abs=1e-4)
    assert (POISSON_WEIGHTS.mean(), POISSON_WEIGHTS.var()) == pytest.approx((1, 1), abs=1e-3)


def test_replicates_scatter_around_the_mean_of_all_images() -> None:
    values = np.arange(400) / 400
    bootstrap = PoissonBootstrap(1)
    bootstrap.add(values[:, None])
    means = bootstrap.means()[:, 0]
    assert len(means) == 1 + REPLICATES
    assert means[0] == pytest.approx(values.mean(), abs=1e-7)
    assert means[1:].mean() == pytest.approx(values.mean(), abs=0.005)
    assert means[1:].std() == pytest.approx(values.std() / np.sqrt(400), rel=0.1)


def test_replicates_without_any_image_are_left_out() -> None:
    bootstrap = PoissonBootstrap(1)
    bootstrap.add(np.array([[0.5]]))
    means = bootstrap.means()
    assert 0.55 * REPLICATES < len(means) < 0.7 * REPLICATES  # a share of e⁻¹ draws no image
    assert (means == 0.5).all()


def test_the_interval_is_reflected_about_the_value() -> None:
    assert bootstrap_estimate(np.array([5.0, *np.linspace(4, 8, 1_001)])) == Estimate(
        5, pytest.approx(2.1), pytest.approx(5.9)
    )


def test_the_interval_contains_the_value_and_stays_in_range() -> None:
    assert bootstrap_estimate(np.array([0.5, *np.linspace(0.6, 1.2, 1_001)])).high == 0.5
    assert bootstrap_estimate(np.array([0.5, *np.linspace(0.6, 1.2, 1_001)])).low == 0
    assert bootstrap_estimate(np.array([0.9, *np.linspace(0.5, 0.9, 1_001)]), highest=1).high == 1


def test_equal_replicates_have_no_interval() -> None:
    assert bootstrap_estimate(np.ones(10)) == Estimate(1, None, None)
