"""Where a data set lies and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bibench_tf.errors import InvalidOption, MissingData


@dataclass(frozen=True)
class LoadOptions:
    """Where a data set lies and how it is loaded; the argument of every factory.

    `data_dir` is the folder in which TensorFlow Datasets keeps prepared data, None for its default, or the user's own
    file or folder in `NAME:FOLDER`. With `download` missing data are fetched. `vocabulary` is the file of word pieces
    for texts, None for the embedded one.
    """

    data_dir: Path | None = None
    download: bool = False
    vocabulary: Path | None = None

    def own_folder(self, name: str, content: str) -> Path:
        """The user's folder in `NAME:FOLDER`, for the data set `name`; `content` is what it holds, for messages.

        Raises InvalidOption where no folder is named and MissingData where there is no such folder.
        """
        if self.data_dir is None:
            raise InvalidOption(f"'{name}' needs the folder of your {content}: write {name}:FOLDER.")
        folder = self.data_dir.expanduser()
        if not folder.is_dir():
            raise MissingData(f"There is no folder {folder} with {content}.")
        return folder
