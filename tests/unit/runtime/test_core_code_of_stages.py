"""The code digests of the builders of the real core."""

import shutil
from pathlib import Path

import pytest
from code_projects import BUILDERS, CORE, Project, changed, digests_of


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """The real package, to be edited."""
    shutil.copytree(CORE.parent, tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(tmp_path)


def builder_digests(copy: Project) -> dict[str, dict[str, str]]:
    core_code = copy.load()
    return {builder: digests_of(core_code, builder) for builder in BUILDERS}


def test_a_changed_network_only_changes_training(copy: Project) -> None:
    before = builder_digests(copy)

    copy.edit("models/tutorial_net", "nn.Linear(120, 84)", "nn.Linear(120, 85)")

    after = builder_digests(copy)
    assert {builder: changed(before[builder], after[builder]) for builder in BUILDERS} == {
        "tasks.core.data.synthetic.write_archive": set(),
        "tasks.core.data.dataset.build_dataset": set(),
        "tasks.core.data.checks.build_data_checks": set(),
        # The manual training step of the tutorial's network is written for its layers.
        "tasks.core.training.train.build_weights": {"tasks/core/models/tutorial_net.py: Net"},
        "tasks.core.models.tutorial_net.Net": {"tasks/core/models/tutorial_net.py: Net"},
        "tasks.core.evaluation.evaluate.build_predictions": set(),
        "tasks.core.evaluation.evaluate.build_per_class": set(),
        "tasks.core.reports.report.build_report": set(),
    }


def test_changed_reading_code_changes_every_stage_that_reads(copy: Project) -> None:
    before = builder_digests(copy)

    copy.edit("data/dataset", 'mmap_mode="c"', 'mmap_mode="r"')

    after = builder_digests(copy)
    readers = {name for name in BUILDERS if changed(before[name], after[name])}
    assert readers == {
        "tasks.core.data.checks.build_data_checks",
        "tasks.core.training.train.build_weights",
        "tasks.core.evaluation.evaluate.build_predictions",
        "tasks.core.reports.report.build_report",
    }


def test_comments_in_any_module_change_nothing(copy: Project) -> None:
    before = builder_digests(copy)

    for path in (copy.folder / "tasks" / "core").rglob("*.py"):
        path.write_text(f"# a comment\n{path.read_text(encoding='utf-8')}\n\n# another\n", encoding="utf-8")

    assert builder_digests(copy) == before


def test_a_changed_recipe_value_is_not_changed_code(copy: Project) -> None:
    before = builder_digests(copy)

    copy.edit("recipes", "epochs=2", "epochs=3")

    assert builder_digests(copy) == before
