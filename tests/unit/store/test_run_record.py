"""Run records: the typed verdict, also of records that have the sentence only."""

from typing import Any

import pytest

from tasks.core.store.runs import RunRecord

RECORD: dict[str, Any] = {
    "run": "20261128-101606-7ad209",
    "status": "completed",
    "started": "2026-11-28T10:16:06.833+00:00",
    "who": "teacher@laptop",
    "settings": {},
    "git": None,
    "versions": {},
}


@pytest.mark.parametrize(
    ("verdict", "promotion"),
    [
        ("promoted: it is the first finished run in this store", "promote"),
        ("the same as the promoted one, which stays: it was good", "keep"),
        ("not promoted: --promote never was asked for", "refuse"),
        ("not promoted: its results are those of run one, which was rolled back (promoted: too early)", "refuse"),
        (None, None),
    ],
)
def test_a_record_with_a_sentence_only_gets_its_typed_verdict(verdict: str | None, promotion: str | None) -> None:
    record = RunRecord(**RECORD, verdict=verdict)

    assert record.promotion == promotion
    assert record.was_promoted == (promotion == "promote")


def test_a_typed_verdict_does_not_depend_on_the_sentence() -> None:
    record = RunRecord(**RECORD, promotion="refuse", verdict="promoted: in other words")

    assert RunRecord.model_validate_json(record.model_dump_json()).promotion == "refuse"


def test_a_run_that_failed_after_its_verdict_was_not_promoted() -> None:
    assert not RunRecord(
        **RECORD | {"status": "failed"}, promotion="promote", verdict="promoted: it was good"
    ).was_promoted
