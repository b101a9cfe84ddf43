"""The workers that are not the chief: they take part in its trainings and store nothing."""

from __future__ import annotations

import tempfile

from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.results import records
from bibench_tf.results.runs import RunSpec, RunStore
from bibench_tf.training import distribution, run
from bibench_tf.training.data_sets import DataSets
from bibench_tf.training.distribution import Devices
from bibench_tf.training.run import Run
from bibench_tf.training.session import Session


def follow(data_sets: DataSets, devices: Devices) -> None:
    """Take part in every training that the chief announces, until it announces the end.

    `data_sets` are those of this machine, which may lie at other places than the chief's. The results folder is neither
    read nor written. Raises BibenchError if this machine has other data than the chief,
    and SessionEnded when the chief or another worker has gone.
    """
    from bibench_tf.training import loop

    session = data_sets.session
    while announced := devices.announced():
        spec = records.structure(announced["spec"], RunSpec)
        run.check_files([spec], session)
        try:
            data = data_sets.of(spec)
        except MissingData:
            data = None
        if data is None or data.fingerprint != announced["fingerprint"]:
            raise BibenchError(f"{spec.dataset} is not the same on all workers: copy the chief's data to this one.")
        with tempfile.TemporaryDirectory(prefix="bibench-") as folder:
            try:
                store = RunStore(folder)
                store.folder(spec).mkdir(parents=True)
                run.learn(Run(spec, data, store, session))
            except loop.Diverged:
                continue  # on the chief as well
            except Exception as error:
                raise distribution.ended(error) from error


def dismiss(session: Session) -> None:
    """Announce the end to the followers."""
    devices = distribution.devices(session.strategy)
    if devices is not None:
        devices.announce({})
