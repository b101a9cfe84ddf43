"""What a worker process does, whoever started it. Only plain data go in and out."""

from __future__ import annotations

import dataclasses
from typing import Any

from bibench_tf import registry
from bibench_tf.errors import BibenchError
from bibench_tf.training.session import Session


def train(spec: dict[str, Any], session: dict[str, Any]) -> dict[str, Any]:
    """Train the run of this specification, if it has no result yet.

    Returns `done`, False when another process holds the run, and `error`, the sentence that ends the whole session,
    None without one.
    """
    from bibench_tf.results import stores
    from bibench_tf.results.runs import RunSpec
    from bibench_tf.training import runner

    registry.load_plugins()
    how = Session.from_dict(session)
    try:
        if how.store is not None:
            how = dataclasses.replace(how, results=stores.working_copy(how.store))  # on this machine
        done = runner.train_one(RunSpec.from_dict(spec), how)
    except BibenchError as error:
        return {"done": False, "error": str(error)}
    return {"done": done, "error": None}
