"""The least that a Prefect pipeline can be: a flow of two empty tasks."""

from prefect import flow, task


@task
def first() -> None:
    """Do nothing."""


@task
def second() -> None:
    """Do nothing either."""


@flow
def empty() -> None:
    first()
    second()


if __name__ == "__main__":
    empty()
