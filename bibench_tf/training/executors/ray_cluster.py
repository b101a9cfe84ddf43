"""Runs as the tasks of a Ray cluster: Ray finds them a machine, and another one when that dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future

from bibench_tf.errors import BibenchError
from bibench_tf.process import PLUGINS_VARIABLE
from bibench_tf.results.runs import RunSpec
from bibench_tf.training.executors import worker
from bibench_tf.training.session import Session

# Node deaths that a run survives.
_RETRIES = 5
# Tasks that Ray is given at a time; more than any cluster has places, so that one that grows knows what for.
_WINDOW = 1000


@contextlib.contextmanager
def started(session: Session) -> Iterator[RayWorkers]:
    """A connection to the cluster at `session.ray_address`, or to one on this machine.

    Raises BibenchError where Ray is missing or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise BibenchError("--executor ray needs Ray: pip install 'bibench-tf[ray]'.") from None
    try:
        ray.init(address=session.ray_address, log_to_driver=not session.quiet, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = session.ray_address or "this machine"
        raise BibenchError(f"There is no Ray cluster at {where} ({type(error).__name__}: {error}).") from error
    try:
        yield RayWorkers(ray, session)
    finally:
        ray.shutdown()


class RayWorkers:
    """A task for each run, which asks for cores and graphics cards, and is given out again when its machine dies."""

    capacity = _WINDOW
    attempts = 1  # Ray has tried again already
    poll_s = 5.0

    def __init__(self, ray, session: Session):
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        gpus = float(has_gpus) if session.gpus_per_run is None else session.gpus_per_run
        self.lost = (ray.exceptions.RayError,)
        self._warn(ray, {"CPU": session.cpus_per_run, "GPU": gpus})
        threads = str(session.cpus_per_run)
        variables = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        if files := os.environ.get(PLUGINS_VARIABLE):
            variables[PLUGINS_VARIABLE] = files
        self._train = ray.remote(worker.train).options(
            num_cpus=session.cpus_per_run,
            num_gpus=gpus,
            max_retries=_RETRIES,
            runtime_env={"env_vars": variables},
        )
        self._session = dataclasses.replace(session, has_neighbours=True).to_dict()

    @staticmethod
    def _warn(ray, wanted: dict[str, float]) -> None:
        """Say it when no machine can take a run; a cluster that grows may get one that can."""
        largest = {name: max((node["Resources"].get(name, 0) for node in ray.nodes()), default=0) for name in wanted}
        for name, amount in wanted.items():
            if amount > largest[name]:
                print(
                    f"bibench: a run asks for {amount:g} {name}, and no machine of the Ray cluster has more than "
                    f"{largest[name]:g}; the runs wait for one that has. --{name.lower()}s-per-run asks for less.",
                    file=sys.stderr,
                )

    def submit(self, spec: RunSpec) -> Future:
        """Give a run to Ray."""
        return self._train.remote(dataclasses.asdict(spec), self._session).future()
