"""The data sets of a session: each is described once, and found by the name that benchmarks and runs have for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_tf import datasets, names, tasks
from bibench_tf.errors import BibenchError, MissingData
from bibench_tf.training.session import Session

if TYPE_CHECKING:
    from bibench_tf.datasets import Dataset
    from bibench_tf.results.runs import RunSpec


class DataSets:
    """The data sets of a session.

    `session` knows the place of each data set that was `named`; give it to other processes, which find them by it.
    """

    def __init__(self, session: Session) -> None:
        """Nothing is read yet."""
        self.session = session
        self._described: dict[tuple[str, Path | None], Dataset] = {}
        self._prepared: dict[tuple[Dataset, str], Dataset] = {}

    def named(self, asked: str) -> str:
        """The name in benchmarks and runs of what the user asks for by NAME or NAME:FOLDER, which is described here.

        A data set inside the package is its own name; a name that the session knows is left as it is. Raises
        BibenchError for data that are missing or cannot be used.
        """
        places = dict(self.session.places)
        if names.data_identity(asked) in places:
            return asked
        # Processes of the session may have another working directory.
        kind, colon, path = asked.partition(":")
        place = f"{kind}:{Path(path).expanduser().absolute()}" if path else asked
        data_dir = self.session.data_dir and self.session.data_dir.expanduser().absolute()
        self.session = dataclasses.replace(self.session, data_dir=data_dir)
        data = self._describe(place, self.session.vocabulary)
        if datasets.describe(asked).embedded:
            return asked
        name = names.data_name(asked, data.fingerprint)
        places.setdefault(names.data_identity(name), place)
        self.session = dataclasses.replace(self.session, places=tuple(places.items()))
        return name

    def get(self, name: str, network: str | None = None) -> Dataset:
        """A data set by its name in benchmarks and runs, as the network called `network` takes it.

        The data at its place are returned as they were described first; `check` compares them with the name. Raises
        MissingData for the user's data where the session does not know their place, and BibenchError for data that
        cannot be used.
        """
        return self._for_network(self._describe(self._place(name), self.session.vocabulary), network)

    def of(self, spec: RunSpec) -> Dataset:
        """The data set of a run, as its network takes it, with the session's vocabulary where the run names one."""
        vocabulary = None if spec.vocabulary is None else self.session.vocabulary
        return self._for_network(self._describe(self._place(spec.dataset), vocabulary), spec.network)

    def _for_network(self, data: Dataset, network: str | None) -> Dataset:
        if network is None:
            return data
        if (data, network) not in self._prepared:
            self._prepared[data, network] = data.for_network(network)
        return self._prepared[data, network]

    def _place(self, name: str) -> str:
        if names.data_fingerprint(name) is None:
            return name
        place = dict(self.session.places).get(names.data_identity(name))
        if place is None and ":" in names.data_label(name):
            raise MissingData(f"The folder or file of '{names.data_label(name)}' is not known here: name it by --data.")
        return place or names.data_kind(name)

    def _describe(self, place: str, vocabulary: Path | None) -> Dataset:
        if not tasks.get(datasets.task_of(place)).takes_vocabulary:
            vocabulary = None
        if (place, vocabulary) not in self._described:
            session = self.session
            found = datasets.get(place, session.data_dir, session.download, vocabulary)
            self._described[place, vocabulary] = found
        return self._described[place, vocabulary]


def check(name: str, data: Dataset) -> None:
    """Raise BibenchError unless `data` are those that `name` means, unchanged since they were described."""
    wanted = names.data_fingerprint(name)
    if wanted is not None and names.data_digits(data.fingerprint) != wanted:
        raise BibenchError(
            f"The data of '{names.data_label(name)}' are not those of this run (fingerprint "
            f"{names.data_digits(data.fingerprint)}, not {wanted}), because they were changed: start the command "
            "again, which plans runs on the data as they are now."
        )
    data.check_unchanged()
