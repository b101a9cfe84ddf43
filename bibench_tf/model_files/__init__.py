"""The loader of models: Keras files, SavedModels, run folders and networks by name; files are checked first."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_tf import files
from bibench_tf.errors import BibenchError, InvalidOption, MissingData
from bibench_tf.model_files.limits import Refusal

if TYPE_CHECKING:
    import tensorflow as tf

ZOO_PREFIX = "zoo:"
_IMAGENET = {"input_shape": (224, 224, 3), "num_classes": 1000}


def load(
    source: str | Path,
    *,
    algorithm: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    width: float = 1.0,
    **network_options: Any,
) -> tf.keras.Model:
    """The Keras model of a source: a .keras or .h5 file, a SavedModel or run folder, or `zoo:NAME[@WIDTH]`.

    A network of the zoo needs the name of its `algorithm`, unless its paper has one of its own, and takes
    `input_shape`, `num_classes` and `width`; @WIDTH overrides `width`; `network_options` are further options of its
    builder. Networks of images default to the sizes of ImageNet, other networks to those of their builder. For files
    only `algorithm` has a meaning, see `load_file`. Raises UnknownName and InvalidOption for networks, and as
    `load_file` for files.
    """
    if not str(source).startswith(ZOO_PREFIX):
        return load_file(source, algorithm)
    from bibench_tf import networks
    from bibench_tf.names import PAPER

    network = str(source)[len(ZOO_PREFIX) :]
    name, own_width = networks.parse(network)
    known = networks.NETWORKS.get(name)
    if algorithm is None and not known.has_own_binarization:
        raise InvalidOption(f"{ZOO_PREFIX}{network} needs an algorithm, such as --algorithm bnn.")
    defaults = _IMAGENET if known.task == "image_classification" else {}
    options = {"input_shape": input_shape, "num_classes": num_classes, "width": width, **network_options}
    if "@" in network:
        options["width"] = own_width
    given = {key: value for key, value in options.items() if value is not None}
    return networks.build(name, algorithm=algorithm or PAPER, **{**defaults, **given})


def load_file(path: str | Path, algorithm: str | None = None) -> tf.keras.Model:
    """The Keras model in a .keras or .h5 file, a SavedModel folder or a run folder (its `model.keras`).

    The classes of Larq and this package are known, and those of plug-in files and of the plug-in of `algorithm`. A file
    is checked before Keras reads it, see SECURITY.md. Raises MissingData when there is no such file, UnknownName for an
    unknown algorithm, and BibenchError when the file cannot be loaded, takes too much memory, or names anything but
    classes and functions that are known to run no code.
    """
    import tensorflow as tf

    from bibench_tf import algorithms
    from bibench_tf.names import PAPER
    from bibench_tf.networks import NETWORKS

    # The look-ups register the classes of the zoo, of algorithms and of plug-ins with Keras.
    NETWORKS.names()
    algorithms.names()
    if algorithm not in (None, PAPER):
        algorithms.get(algorithm)
    path = Path(path)
    with _in_one_sentence(path):
        if (path / "result.json").is_file():
            path = path / "model.keras"
        if not path.exists():
            raise MissingData(f"There is no model {path}; give a .keras or .h5 file, a SavedModel folder or zoo:NAME.")
    with _in_one_sentence(path):
        model = _of_folder(path) if path.is_dir() else _of_file(path)
        if not isinstance(model, tf.keras.Model):
            raise BibenchError(f"{path} holds a {type(model).__name__}, not a Keras model.")
        if not model.layers:
            raise BibenchError(f"{path} holds a model without layers.")
        return model


def plain_saved_model(source: str | Path) -> bool:
    """Whether `source` is a SavedModel folder that holds a graph without Keras layers, such as of `model.export`.

    Raises BibenchError for a SavedModel that cannot be read, takes too much memory, or has operations beside those on
    tensors and variables.
    """
    folder = Path(source)
    with _in_one_sentence(folder):
        if not (folder / "saved_model.pb").is_file():
            return False
        from bibench_tf.model_files import graphs

        return graphs.keras_configuration(folder) is None


def load_graph(folder: Path) -> Any:
    """The graph of a SavedModel, as `tf.saved_model.load` gives it. Raises BibenchError as `plain_saved_model`."""
    import tensorflow as tf

    plain_saved_model(folder)
    with _in_one_sentence(folder):
        return tf.saved_model.load(str(folder))


@contextlib.contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    """Raise BibenchError in place of any exception. Keras and TensorFlow have none for a file that they cannot read."""
    try:
        with files.room_in(tempfile.gettempdir()):
            yield
    except BibenchError:
        raise
    except Refusal as error:
        raise BibenchError(f"{path} is not loaded: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BibenchError(f"{path} cannot be loaded: {reason}") from error


def _of_folder(folder: Path) -> tf.keras.Model:
    from bibench_tf.model_files import building, configurations, containers, graphs

    if not (folder / "saved_model.pb").is_file():
        raise BibenchError(f"{folder} is neither a SavedModel nor a run folder: it has no saved_model.pb.")
    text = graphs.keras_configuration(folder)
    if text is None:
        raise BibenchError(
            f"{folder} is a SavedModel without Keras layers: it can be converted (bibench deploy convert), and the "
            "converted file audited, but its layers are not known."
        )
    weights = folder / "variables" / "variables"
    return building.build(configurations.checked(text), weights, containers.checkpoint_bytes(weights))


def _of_file(path: Path) -> tf.keras.Model:
    import h5py

    from bibench_tf.model_files import building, configurations, containers

    size = path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="bibench-") as folder:
        # The same questions in the same order as Keras: the content of a file decides, except for .keras.
        if path.suffix == ".keras" and zipfile.is_zipfile(path):
            weights = Path(folder, "model.weights.h5")  # Keras tells the two kinds of HDF5 by their names
            text = containers.unpack_keras(path, weights)
        elif h5py.is_hdf5(path):
            weights = Path(folder, "model.h5")
            weights.symlink_to(path.resolve())
            text = None
        else:
            raise BibenchError(f"{path} is neither a .keras file, nor an HDF5 file (.h5), nor a SavedModel folder.")
        held = containers.hdf5_bytes(weights, size)
        configuration = configurations.checked(text or containers.hdf5_configuration(weights))
        return building.build(configuration, weights, held)
