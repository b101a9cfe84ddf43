"""Corrupted images as files: of a folder of images, and of the test set of a data set."""

from __future__ import annotations

import io
import itertools
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from bibench_tf import corruptions, files
from bibench_tf.errors import BibenchError, InvalidOption, MissingData, StorageError

if TYPE_CHECKING:
    from bibench_tf.datasets import ImageDataset

SETTINGS_FILE = "corruptions.json"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_BATCH_SIZE = 500
_SHOWN = 10


@dataclass
class Outcome:
    """The counts of written and of existing files, and the failures.

    `unreadable` are names of source images with the reason, `refused` counts files by the reason why a corruption was
    left out.
    """

    written: int = 0
    present: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def failures(self) -> list[str]:
        """The failures as lines of text, the first ten of the unreadable images by name."""
        lines = [f"{count:,} files were not made: {reason}" for reason, count in self.refused.items()]
        unreadable = sorted(self.unreadable.items())
        if unreadable:
            lines.append(f"{len(unreadable):,} images could not be read:")
        lines += [f"  {name}: {reason}" for name, reason in unreadable[:_SHOWN]]
        if len(unreadable) > _SHOWN:
            lines.append(f"  and {len(unreadable) - _SHOWN:,} more")
        return lines


def corrupt_folder(
    source: Path,
    target: Path,
    names: Sequence[str],
    severities: Sequence[int],
    *,
    seed: int = 0,
    table: str = "cifar10",
    workers: int = 1,
    quiet: bool = True,
) -> Outcome:
    """Write `target`/CORRUPTION/SEVERITY/NAME.png for each image `source`/NAME.png or .jpg, however deep.

    The noise of an image depends on `seed` and on its name within `source`. Existing files are kept, unless the image
    that they were made from is newer. Transparency is dropped. Raises UnknownName for a corruption or a table,
    MissingData for a source without images, and InvalidOption for a severity other than 0 to 5, for a source with two
    images of one name, and for a target within the source, made from another source or with other settings, or with
    files of another origin.
    """
    for name, severity in itertools.product(names, severities):
        corruptions.check(name, channels=3, severity=severity, table=table)
    images = _images_in(source)
    if target.resolve().is_relative_to(source.resolve()):
        raise InvalidOption(f"The target {target} lies within the source {source}: choose a folder outside of it.")
    _claim(target, {"source": str(source.resolve()), "seed": seed, "table": table})
    outcome = Outcome()

    def corrupt(relative: Path) -> None:
        png = relative.with_suffix(".png")
        made = [(name, severity, target / name / str(severity) / png) for name in names for severity in severities]
        try:
            # The time of the last change, also where an older image was put in place of the image.
            changed_ns = (source / relative).stat().st_ctime_ns
            missing = [(name, severity, path) for name, severity, path in made if not _is_newer(path, changed_ns)]
            outcome.present += len(made) - len(missing)
            if not missing:
                return
            image = _read(source / relative)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            outcome.unreadable[relative.as_posix()] = str(error) or type(error).__name__
            return
        index = zlib.crc32(relative.as_posix().encode())
        for name, severity, path in missing:
            try:
                corrupted = corruptions.apply(name, image[None], severity, seed=seed, first_index=index, table=table)[0]
            except BibenchError as error:
                outcome.refused[str(error)] += 1
                continue
            _write_png(path, corrupted)
            outcome.written += 1

    pool = ThreadPoolExecutor(workers)
    try:
        with _progress(len(images), quiet) as progress:
            for _ in pool.map(corrupt, images):
                progress.update()
    finally:  # when one call fails, those that have not begun are dropped
        pool.shutdown(cancel_futures=True)
    return outcome


def _images_in(source: Path) -> list[Path]:
    """The images below `source`, relative to it, sorted."""
    if not source.is_dir():
        raise MissingData(f"There is no folder {source}: give a folder of PNG or JPEG images, or data:NAME.")
    found = sorted(
        (path.relative_to(source) for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()),
        key=Path.as_posix,
    )
    if not found:
        raise MissingData(f"The folder {source} has no PNG or JPEG images.")
    same = [path for path, count in Counter(path.with_suffix(".png") for path in found).items() if count > 1]
    if same:
        raise InvalidOption(
            f"In {source} two images would both become {same[0].as_posix()} (and {len(same) - 1} more such names): "
            "rename one of each."
        )
    return found


def _is_newer(path: Path, changed_ns: int) -> bool:
    """Whether there is a file that was written after this time."""
    try:
        return path.stat().st_mtime_ns >= changed_ns
    except FileNotFoundError:
        return False


def _claim(target: Path, settings: dict[str, Any]) -> None:
    """Note in `target` how its images are made; existing images must have been made the same way."""
    path, wanted = target / SETTINGS_FILE, settings | {"version": corruptions.VERSION}
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if target.is_dir() and any(not entry.name.startswith(".") for entry in target.iterdir()):
            raise InvalidOption(
                f"{target} has files of another origin, which would be mixed with corrupted images: choose an empty "
                "folder."
            ) from None
        content = json.dumps(wanted, indent=1) + "\n"
        return files.write_atomically(path, lambda temporary: temporary.write_text(content, "utf-8"))
    except OSError as error:
        raise StorageError.of(target, error) from error
    except ValueError:
        found = "unreadable settings"
    if found != wanted:
        raise InvalidOption(
            f"The images in {target} were made with {found}, not with {wanted}: choose another folder, or the same "
            "source and settings."
        )


def _read(path: Path) -> np.ndarray:
    """A PNG or JPEG image, uint8 [H, W, 1 or 3], turned as its EXIF data say."""
    with Image.open(path, formats=["PNG", "JPEG"]) as stored:
        if stored.mode.startswith(("I", "F")):
            raise ValueError(f"it has more than 8 bits per channel (mode {stored.mode})")
        image = ImageOps.exif_transpose(stored)
        grey = image.mode in ("1", "L", "LA")
        levels = np.asarray(image.convert("L" if grey else "RGB"))
    return levels[..., None] if grey else levels


def _write_png(path: Path, image: np.ndarray) -> None:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG")
    files.write_atomically(path, lambda temporary: temporary.write_bytes(stream.getvalue()))


def corrupt_dataset(
    dataset: ImageDataset,
    target: Path,
    names: Sequence[str],
    *,
    seed: int = 0,
    table: str = "cifar10",
    workers: int = 1,
    quiet: bool = True,
) -> Outcome:
    """Write the corrupted test images of a data set as CIFAR-10-C is published.

    `target`/CORRUPTION.npy holds the five severities one after the other, uint8 [5 N, H, W, C], and labels.npy the
    labels [5 N]. Existing files are kept. Raises UnknownName and InvalidOption for a corruption that does not
    exist or does not fit the images, and for a target made from other data, with other settings, or with files of
    another origin.
    """
    for name in names:
        corruptions.check(name, dataset.input_shape[-1], table=table)
    origin = {"source": f"data:{dataset.name}", "fingerprint": dataset.fingerprint}
    _claim(target, {**origin, "seed": seed, "table": table})
    missing = [corruption for corruption in names if not (target / f"{corruption}.npy").exists()]
    outcome = Outcome(present=len(names) - len(missing))
    count, severities = dataset.test_examples, corruptions.SEVERITIES
    shape = (len(severities) * count, *dataset.input_shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with _progress(len(missing) * count, quiet) as progress:
        for corruption in missing:
            progress.set_description(corruption)

            def fill(temporary: Path, corruption: str = corruption) -> None:
                labels = []
                # Not mapped into memory: a full disk would end the process by SIGBUS.
                with open(temporary, "wb") as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    start = file.tell()
                    for first, images, of_images in _test_images(dataset):
                        for place, severity in enumerate(severities):
                            options: dict[str, Any] = {"seed": seed, "first_index": first, "table": table}
                            made = corruptions.apply(corruption, images, severity, workers=workers, **options)
                            file.seek(start + (place * count + first) * images[0].size)
                            file.write(made.tobytes())
                        labels.append(of_images)
                        progress.update(len(images))
                stored = np.tile(np.concatenate(labels), len(severities))
                stored = stored.astype(np.uint8 if stored.max(initial=0) < 256 else np.uint16)
                files.write_atomically(target / "labels.npy", lambda path: np.save(path, stored))

            files.write_atomically(target / f"{corruption}.npy", fill)
            outcome.written += 1
    return outcome


def _test_images(dataset: ImageDataset) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The test images as they are stored, uint8 [B, H, W, C], with the number of the first and the labels [B]."""
    found: dict[int, np.ndarray] = {}

    def keep(images: np.ndarray, first: int) -> np.ndarray:
        found[int(first)] = images.copy()
        return images

    # In threads of TensorFlow, where an error would lose its type: the images are only picked up there.
    first = 0
    for _, labels in dataset.test_batches(_BATCH_SIZE, corrupt=keep):
        yield first, found.pop(first), labels.numpy()
        first += len(labels)


def _progress(images: int, quiet: bool) -> tqdm:
    """A bar on stderr; on a file or pipe a line every half minute."""
    interval_s = 0.2 if sys.stderr.isatty() else 30
    return tqdm(total=images, unit="image", disable=quiet, file=sys.stderr, mininterval=interval_s, dynamic_ncols=True)
