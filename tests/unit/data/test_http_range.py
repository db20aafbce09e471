"""The action that follows from a response to a range request."""

import pytest

from tasks.core.data.http_range import choose_action


@pytest.mark.parametrize(
    ("status", "content_range", "action"),
    [
        (200, "", "replace"),
        (206, "bytes 5-9/10", "append"),
        (206, "bytes 5-9/*", "append"),
        (206, "bytes 0-9/10", "restart"),
        (206, "", "restart"),
        (416, "bytes */10", "restart"),
        (204, "", "fail"),
        (503, "", "fail"),
    ],
)
def test_the_action_follows_from_status_and_content_range(status: int, content_range: str, action: str) -> None:
    assert choose_action(status, {"content-range": content_range}, 5, "") == action
