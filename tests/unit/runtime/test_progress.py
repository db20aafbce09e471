"""Progress in Prefect's UI, which holds up nothing."""

import socket

from killing import go_on, next_line, started

COUNTING = """
import logging, sys
from tasks import ui_progress

counting.UPDATE_EVERY_S = 0.1
said = []
logger = logging.getLogger("test")
logger.addHandler(logging.NullHandler())
logger.addFilter(lambda record: said.append(record.getMessage()))
with counting.ui_progress_artifact(logger, "training") as show:
    show(1, 4)
    print("working", flush=True)
    sys.stdin.readline()
    show(4, 4)
print(said)  # that it gave up is said after a minute
"""


def test_a_server_that_does_not_answer_holds_nothing_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with started(COUNTING, PREFECT_API_URL=f"http://127.0.0.1:{port}/api", PYTHONWARNINGS="ignore") as process:
            assert next_line(process) == "working"
            asking, _ = silent.accept()
            with asking:
                assert go_on(process) == ["[]"]
