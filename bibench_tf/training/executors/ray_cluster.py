"""Runs as the tasks of a Ray cluster: Ray chooses a machine for each, and another one if that dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from bibench_tf import terminal
from bibench_tf.errors import InvalidOption
from bibench_tf.process import PLUGINS_VARIABLE
from bibench_tf.results import records
from bibench_tf.results.runs import RunSpec
from bibench_tf.training.executors import worker
from bibench_tf.training.session import Session

# The number of node deaths that a run survives.
_RETRIES = 5
# Tasks that Ray gets at a time; more than any cluster can run, so that an autoscaling cluster sees the demand.
_WINDOW = 1000


@contextlib.contextmanager
def started(session: Session) -> Iterator[RayWorkers]:
    """A connection to the cluster at `session.ray_address`; without an address Ray starts one on this machine.

    Raises InvalidOption if Ray is not installed or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise InvalidOption("--executor ray needs Ray: pip install 'bibench-tf[ray]'.") from None
    try:
        # Without a folder of its own, Ray puts the current folder on the path of the workers, before all packages.
        with tempfile.TemporaryDirectory(prefix="bibench-") as empty:
            ray.init(
                address=session.ray_address,
                log_to_driver=not session.quiet,
                configure_logging=False,
                runtime_env={"working_dir": empty},
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = session.ray_address or "this machine"
        raise InvalidOption(f"There is no Ray cluster at {where} ({type(error).__name__}: {error}).") from error
    try:
        yield RayWorkers(ray, session)
    finally:
        ray.shutdown()


class RayWorkers:
    """A task for each run, which requests cores and GPUs; Ray starts it again if its machine dies."""

    capacity = _WINDOW
    attempts = 1  # Ray has retried already
    poll_s = 5.0

    def __init__(self, ray: Any, session: Session) -> None:
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        gpus = float(has_gpus) if session.gpus_per_run is None else session.gpus_per_run
        self.lost: tuple[type[BaseException], ...] = (ray.exceptions.RayError,)
        self._warn(ray, {"CPU": session.cpus_per_run, "GPU": gpus})
        threads = str(session.cpus_per_run)
        variables = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        if plugins := os.environ.get(PLUGINS_VARIABLE):
            variables[PLUGINS_VARIABLE] = plugins
        self._train = ray.remote(_train).options(
            num_cpus=session.cpus_per_run,
            num_gpus=gpus,
            max_retries=_RETRIES,
            runtime_env={"env_vars": variables},
        )
        self._folder = os.getcwd()
        self._session = records.unstructure(dataclasses.replace(session, has_neighbours=True))

    @staticmethod
    def _warn(ray: Any, wanted: dict[str, float]) -> None:
        """Warn if no machine is large enough for a run; a cluster that grows may get one."""
        for name, amount in wanted.items():
            largest = max((node["Resources"].get(name, 0) for node in ray.nodes()), default=0)
            if amount > largest:
                terminal.message(
                    f"bibench: a run needs {amount:g} {name}, and no machine of the Ray cluster has more than "
                    f"{largest:g}; the runs wait for a larger machine. Lower --{name.lower()}s-per-run to use "
                    "these."
                )

    def submit(self, spec: RunSpec) -> Future[dict[str, Any]]:
        """Start the task of a run."""
        return self._train.remote(self._folder, records.unstructure(spec), self._session).future()


def _train(folder: str, spec: dict[str, Any], session: dict[str, Any]) -> dict[str, Any]:
    """`worker.train` in a task; relative paths start at the folder of the command, where this machine has it."""
    with contextlib.suppress(FileNotFoundError):
        os.chdir(folder)
    return worker.train(spec, session)
