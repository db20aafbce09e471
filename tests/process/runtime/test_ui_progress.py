"""Progress in Prefect's UI does not delay the work."""

import socket

from killing import PRINT_LOG, next_line, python_process, resume

SCRIPT = f"""
import sys
from tasks import ui_progress
{PRINT_LOG}
ui_progress.UPDATE_EVERY_S = 0.1
with ui_progress.progress("training") as show:
    show(1, 4)
    print("working", flush=True)
    sys.stdin.readline()
    show(4, 4)
"""


def test_a_server_that_does_not_answer_delays_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with python_process(SCRIPT, PREFECT_API_URL=f"http://127.0.0.1:{port}/api", PYTHONWARNINGS="ignore") as process:
            assert next_line(process) == "working"
            connection, _ = silent.accept()
            with connection:
                assert resume(process) == []  # the warning about the lost server comes after a minute
