"""The function of a worker process, of any executor. Arguments and results are plain JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any

from bibench_tf import registry
from bibench_tf.errors import BibenchError
from bibench_tf.results import records, stores
from bibench_tf.results.runs import RunSpec
from bibench_tf.training import run
from bibench_tf.training.session import Session


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """`train` with the arguments in a job of `workers.Worker`."""
    return train(**job)


def train(spec: dict[str, Any], session: dict[str, Any]) -> dict[str, Any]:
    """Train the run of this specification, if it has no result yet; both arguments come from `records.unstructure`.

    Returns `done`, False when another process holds the run, and `error`, a sentence for which the whole session has to
    end; None without an error.
    """
    how = records.structure(session, Session)
    try:
        registry.load_plugins()  # the process may be new
        if how.store is not None:
            how = dataclasses.replace(how, results=stores.working_copy(how.store))  # on this machine
        done = run.train_one(records.structure(spec, RunSpec), how)
    except BibenchError as error:
        return {"done": False, "error": str(error)}
    return {"done": done, "error": None}
