"""The loader of models: Keras files, SavedModels, run folders and networks by name; files are checked first."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_tf.errors import BibenchError, InvalidOption, MissingData

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
    is checked before Keras reads it. Raises MissingData when there is no such file, UnknownName for an unknown
    algorithm, and BibenchError when the file cannot be loaded or loading it would run code.
    """
    import h5py
    import tensorflow as tf

    from bibench_tf import algorithms
    from bibench_tf.model_files import checks
    from bibench_tf.names import PAPER
    from bibench_tf.networks import NETWORKS

    # The look-ups register the classes of the zoo, of algorithms and of plug-ins with Keras.
    NETWORKS.names()
    algorithms.names()
    if algorithm not in (None, PAPER):
        algorithms.get(algorithm)
    path = Path(path)
    if (path / "result.json").is_file():
        path = path / "model.keras"
    if plain_saved_model(path):
        raise BibenchError(
            f"{path} is a SavedModel without Keras layers: it can be converted (bibench deploy convert), and the "
            "converted file audited, but its layers are not known."
        )
    if not path.exists():
        raise MissingData(f"There is no model {path}; give a .keras or .h5 file, a SavedModel folder or zoo:NAME.")
    # The same questions in the same order as Keras: the content of a file decides, except for .keras.
    try:
        if path.is_dir():
            if not (path / "saved_model.pb").is_file():
                raise BibenchError(f"{path} is neither a SavedModel nor a run folder: it has no saved_model.pb.")
            return _rebuild(checks.saved_model_config(path), path / "variables" / "variables")
        if path.suffix == ".keras" and zipfile.is_zipfile(path):
            checks.check_keras(path)
            model = tf.keras.models.load_model(path, compile=False)
        elif h5py.is_hdf5(path):
            model = _rebuild(checks.hdf5_config(path), path)
        else:
            raise BibenchError(f"{path} is neither a .keras file, nor an HDF5 file (.h5), nor a SavedModel folder.")
    except BibenchError:
        raise
    except Exception as error:  # Keras has no exception of its own for a file that it cannot read
        raise BibenchError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(model, tf.keras.Model):
        raise BibenchError(f"{path} holds a {type(model).__name__}, not a Keras model.")
    return model


def plain_saved_model(source: str | Path) -> bool:
    """Whether `source` is a SavedModel folder that holds a graph without Keras layers, such as of `model.export`.

    Raises BibenchError for a graph with operations that reach files or run Python.
    """
    from bibench_tf.model_files import checks

    folder = Path(source)
    return (folder / "saved_model.pb").is_file() and checks.saved_model_config(folder) is None


def _rebuild(config: dict[str, Any] | None, weights: Path) -> tf.keras.Model:
    """The model of a configuration, with weights from an HDF5 file or a checkpoint.

    Keras' own loader of these formats does not find registered functions, such as Larq's hard_tanh, and takes the code
    of unknown layers from the SavedModel.
    """
    import tensorflow as tf

    model = tf.keras.models.model_from_json(json.dumps(json.loads(json.dumps(config), object_hook=_function_by_name)))
    status = model.load_weights(weights)
    if status is not None:
        status.expect_partial().assert_existing_objects_matched()
    return model


def _function_by_name(value: dict[str, Any]) -> Any:
    is_function = value.get("class_name") == "function" and isinstance(value.get("config"), str)
    return value["config"] if is_function else value
