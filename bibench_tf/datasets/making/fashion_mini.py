"""Draw the embedded subset `fashion_mini` from the four files of Fashion-MNIST.

    python -m bibench_tf.datasets.making.fashion_mini FOLDER

FOLDER holds `train-images-idx3-ubyte.gz` and its three companions, as Debian's package
`dataset-fashion-mnist` installs them in /usr/share/datasets/fashion-mnist. The drawn images depend on SEED
alone.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from bibench_tf.datasets.fashion_mini import FILE
from bibench_tf.datasets.kinds.arrays import Splits
from bibench_tf.files import write_atomically

SEED = 2023
TRAIN_PER_CLASS = 800
TEST_PER_CLASS = 200


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file: two zeros, type 8, rank, shape in big-endian 32-bit numbers."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def draw(folder: Path) -> tuple[Splits, dict[str, np.ndarray]]:
    """The subset, and for each split the chosen positions in the official one.

    Each class is drawn without replacement from the official split of the same name, and the whole is
    shuffled, so that any prefix is nearly balanced.
    """
    random = np.random.default_rng(SEED)
    arrays, positions = [], {}
    for split, prefix, per_class in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = [random.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in range(10)]
        positions[split] = random.permutation(np.concatenate(chosen))
        arrays += [images[positions[split]][..., None], labels[positions[split]]]
    return Splits(*arrays), positions


def main(folder: Path, target: Path) -> None:
    """Write the subset drawn from `folder` to the .npz file `target`."""
    splits, _ = draw(folder)
    write_atomically(target, lambda path: np.savez_compressed(path, **splits._asdict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), FILE)
