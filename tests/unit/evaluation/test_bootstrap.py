"""The Poisson bootstrap."""

import numpy as np
import pytest

from tasks.core.evaluation.bootstrap import POISSON, REPLICATES, PoissonBootstrap, bootstrap_estimate
from tasks.core.evaluation.intervals import Estimate


def test_images_count_as_often_as_a_poisson_distribution_of_mean_one_has_it() -> None:
    shares = np.bincount(POISSON.astype(int)) / len(POISSON)
    assert shares[:5] == pytest.approx([0.36788, 0.36788, 0.18394, 0.06131, 0.01533], abs=1e-4)
    assert (POISSON.mean(), POISSON.var()) == pytest.approx((1, 1), abs=1e-3)


def test_the_first_mean_is_the_images_own_and_the_replicates_scatter_about_it() -> None:
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
    assert 0.55 * REPLICATES < len(means) < 0.7 * REPLICATES  # of e⁻¹ of them no image is
    assert (means == 0.5).all()


def test_the_interval_is_reflected_about_the_value() -> None:
    assert bootstrap_estimate(np.array([5.0, *np.linspace(4, 8, 1_001)])) == Estimate(
        5, pytest.approx(2.1), pytest.approx(5.9)
    )


def test_the_interval_holds_the_value_and_leaves_the_range_on_neither_side() -> None:
    assert bootstrap_estimate(np.array([0.5, *np.linspace(0.6, 1.2, 1_001)])).high == 0.5
    assert bootstrap_estimate(np.array([0.5, *np.linspace(0.6, 1.2, 1_001)])).low == 0
    assert bootstrap_estimate(np.array([0.9, *np.linspace(0.5, 0.9, 1_001)]), highest=1).high == 1


def test_replicates_that_are_all_alike_tell_no_interval() -> None:
    assert bootstrap_estimate(np.ones(10)) == Estimate(1, None, None)
