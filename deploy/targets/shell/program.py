"""lce_benchmark_model as a file: which build a device needs, and where to download it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import platformdirs

from bibench_tf.deploy.targets import kind_of
from bibench_tf.deploy.targets.shell.benchmark_tool import printable
from bibench_tf.errors import BibenchError, InvalidOption

RELEASES = "https://github.com/larq/compute-engine/releases/download"
_MACHINES = {62: "x86_64", 183: "arm64-v8a", 40: "armeabi-v7a", 3: "x86", 243: "riscv64"}


@dataclass(frozen=True)
class Programs:
    """The programs that measure on the targets that need one: `binaries`, or a release of LCE to download.

    Attributes:
        binaries: One for all targets, or one for each in the order of the targets.
        release: A release of LCE, such as `v0.16.0`.
        sha256: The digest of the file of the release, hexadecimal.
    """

    binaries: Sequence[Path] = ()
    release: str | None = None
    sha256: str | None = None

    def by_target(self, targets: Sequence[str]) -> dict[str, Path | None]:
        """The program of each target, None where there is none; programs of a release are downloaded.

        Raises UnknownName and InvalidOption for names that are no target, for programs that do not fit the targets and
        for a release without a digest; BibenchError when the download fails.
        """
        files = {name: kind_of(name).program for name in targets}
        needing = [name for name, file in files.items() if file is not None]
        if self.release is not None:
            if self.binaries or not needing:
                raise InvalidOption(
                    "--lce-release is for targets that need lce_benchmark_model, such as adb or ssh, in place of "
                    "--binary."
                )
            if self.sha256 is None:
                asset = files[needing[0]]
                raise InvalidOption(f"No SHA-256 is known for {asset} of LCE {self.release}: give it with --sha256.")
            binaries = [download(self.release, str(files[name]), self.sha256) for name in needing]
        elif len(self.binaries) not in (0, 1, len(needing)):
            raise InvalidOption(
                f"There are {len(self.binaries)} programs for {len(needing)} devices: give one for all, or one for "
                "each in the order of the devices."
            )
        else:
            binaries = [*self.binaries] if len(self.binaries) == len(needing) else [*self.binaries] * len(needing)
        return dict.fromkeys(targets) | dict(zip(needing, binaries, strict=False))


def check(binary: Path | None, abi: str) -> Path:
    """The program, if it can run on a device of this ABI; a script (`#!`) is accepted unseen.

    Raises InvalidOption for no program and for a program of another processor, BibenchError for an unreadable one.
    """
    if binary is None:
        raise InvalidOption(
            "Measuring on a device needs lce_benchmark_model for it: --binary PATH, or --lce-release RELEASE --sha256 "
            "HEX."
        )
    try:
        with open(binary, "rb") as stream:
            head = stream.read(20)
    except OSError as error:
        raise BibenchError(f"Cannot read the program {binary}: {error.strerror}.") from error
    if head.startswith(b"#!"):
        return binary
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise InvalidOption(f"{binary} is not a Linux or Android program (no ELF header): is it lce_benchmark_model?")
    code = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    built = _MACHINES.get(code, f"ELF machine {code}")
    if built != abi:
        raise InvalidOption(f"{binary} is built for {built}, the device runs {abi}: take the build for {abi}.")
    return binary


def download(release: str, asset: str, sha256: str, *, cache: Path | None = None, releases: str = RELEASES) -> Path:
    """A file of a release of LCE with the SHA-256 `sha256` (hexadecimal), from the cache or the network.

    Raises InvalidOption for a name that is no release and a digest that is no SHA-256, and BibenchError when the
    download fails, leaves https or has another digest.
    """
    import pooch
    from requests import RequestException

    if not re.fullmatch(r"v?\d+(\.\d+)+[A-Za-z0-9.-]*", release):
        raise InvalidOption(f"'{release}' is not the name of a release of LCE, such as v0.16.0.")
    sha256 = sha256.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InvalidOption("A SHA-256 has 64 hexadecimal digits.")
    url = f"{releases}/{release}/{asset}"
    _check_url(url)
    folder = (cache or platformdirs.user_cache_path("bibench-tf")) / sha256
    downloader = pooch.HTTPDownloader(hooks={"response": _check_redirection}, timeout=60)
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", asset, folder, downloader=downloader))
    except (ValueError, OSError, RequestException) as error:
        raise BibenchError(f"{url} cannot be downloaded: {error}") from error


def _check_redirection(response: Any, **options: Any) -> None:
    if response.is_redirect:
        _check_url(urljoin(response.url, response.headers["location"]))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    # Loopback never leaves the computer: a mirror of one's own, and the tests.
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise BibenchError(f"The download leads to {printable(url)}, which is not https: nothing was fetched.")
