"""Arguments and options that several commands share."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from tasks.core.config import store_location
from tasks.core.store import Store, open_store

RUN_NAMES = "a run id, the beginning of one, current, or previous"
RunArgument = Annotated[str, Parameter(help=f"{RUN_NAMES.capitalize()}.")]
StoreOption = Annotated[
    str | None,
    Parameter(help="A folder or s3://bucket/prefix; by default CIFAR_FLOW_STORE or the project's artifacts folder."),
]
WhyOption = Annotated[str, Parameter(help="The reason, for the promotion log.")]
JsonOption = Annotated[bool, Parameter(help="Print JSON.", negative="")]
ModelOption = Annotated[
    str | None, Parameter(help="The custom network of the run, as package.module:factory; its code is executed.")
]
NOT_NEGATIVE = Number(gte=0)


def open_existing_store(store: str | None) -> Store:
    """Open the store of a --store option, which must exist."""
    return open_store(store_location(store), must_exist=True)
