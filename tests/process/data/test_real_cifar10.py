"""The pipeline on real CIFAR-10, if a copy of its images is next to the checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pipeline import Pipeline, built

from tasks.core.config import PROJECT

BUILDER = PROJECT.parent / "shared" / "data" / "build_cifar10.py"


@pytest.mark.skipif(not BUILDER.is_file(), reason="no copy of CIFAR-10 next to the checkout")
def test_real_cifar10_reproduces_the_numbers_of_the_tutorial(pipeline: Pipeline, tmp_path: Path) -> None:
    subprocess.run([sys.executable, BUILDER, tmp_path], check=True, capture_output=True)
    archive = tmp_path / "cifar-10-python.tar.gz"
    printed = pipeline.run("--source", archive)
    losses = [float(loss) for loss in re.findall(r"\[\d, +\d+\] loss: (\d\.\d{3})", printed)]
    assert losses[0] == pytest.approx(2.2, abs=0.1)
    assert losses[-1] == pytest.approx(1.27, abs=0.1)

    per_class = pd.read_parquet(pipeline.store / "per_class.parquet")
    predictions = pd.read_parquet(pipeline.store / "predictions.parquet")
    assert list(per_class["class"]) == ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert list(predictions["label"][:4]) == ["cat", "ship", "ship", "plane"]
    assert 0.52 <= per_class["correct"].sum() / 10_000 <= 0.58
    assert per_class["correct"].sum() == predictions["correct"].sum()
    assert built(pipeline.run("--source", archive)) == []
