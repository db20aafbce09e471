"""Mirrors: what their answers are good for."""

import pytest

from tasks.core.data.http_range import next_step


@pytest.mark.parametrize(
    ("status", "content_range", "step"),
    [
        (200, "", "whole"),
        (206, "bytes 5-9/10", "append"),
        (206, "bytes 5-9/*", "append"),
        (206, "bytes 0-9/10", "restart"),
        (206, "", "restart"),
        (416, "bytes */10", "restart"),
        (204, "", "refuse"),
        (503, "", "refuse"),
    ],
)
def test_an_answer_to_a_range_request_is_judged_by_its_status_and_range(
    status: int, content_range: str, step: str
) -> None:
    assert next_step(status, {"content-range": content_range}, 5, "") == step
