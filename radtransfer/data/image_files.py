"""Find images on disk: list folders, and resolve the paths in tables from other machines."""

import errno
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from radtransfer.errors import DataError, suggest_path
from radtransfer.images.files import DICOM_SUFFIXES, PREAMBLE, advice, format_by_name, is_dicom
from radtransfer.images.refs import FilePart, ImageRef, as_part, file_of

_FRAME = re.compile(r"(?P<file>.+)#(?P<frame>[1-9]\d*)")
"""Path of a frame with `--frames all`."""

IMAGE_SUFFIXES = frozenset(
    [
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
        *(".pgm", ".ppm", ".pnm", ".pbm"),
        *DICOM_SUFFIXES,
    ]
)


def is_image_name(name: str) -> bool:
    """Whether a file name has an image suffix and is not hidden (such as `._1.png` of macOS)."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def is_dicom_file(file: Path) -> bool:
    """Whether `file` is DICOM by suffix, or by its first bytes if the suffix is missing or a number.

    Scanners write names such as `IM-0001-0001` or `1.2.840.113619.2.55`. DICOMDIR is an index, not an image.
    """
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if file.name.startswith((".", "DICOMDIR")) or not (suffix == "" or suffix[1:].isdigit()):
        return False
    try:
        with file.open("rb") as handle:
            return is_dicom(handle.read(PREAMBLE))
    except OSError:
        return False


def is_dangling(file: Path) -> bool:
    """Whether `file` is a link whose target is missing, as datalad and git-annex leave them, or a link to itself."""
    return os.path.islink(file) and not os.path.exists(file)  # noqa: PTH110, PTH114


def unread_note(files: Iterable[str]) -> str | None:
    """A sentence that counts files in unsupported formats; None if there are none."""
    found = [(format_by_name(file.rpartition("/")[2]), file) for file in files]
    examples: dict[str, str] = {}
    for name, file in found:
        if name is not None:
            examples.setdefault(name, file)
    counts = Counter(name for name, _ in found if name is not None).most_common()
    if not counts:
        return None
    listed = ", ".join(f"{count} {name}" for name, count in counts)
    what = "; ".join(f"{examples[name]!r}: {advice(name)}" for name, _ in counts[:3])
    return f"{listed} not read ({what})"


def walk_files(folder: Path, *, outside: bool = False) -> list[str]:
    """Files and dangling links below `folder`, sorted, relative to it with "/", without hidden folders.

    Linked folders are followed once; raises DataError for links out of `folder` unless `outside`.
    """
    leaving: list[str] = []
    files = _listed(folder, None if outside else leaving)
    check_links(folder, leaving)
    return files


def images_below(folder: Path, *, outside: bool) -> tuple[list[str], list[str]]:
    """The images (by name, or DICOM) below `folder`, and the other files; raises as `walk_files`."""
    files = walk_files(folder, outside=outside)
    images = [file for file in files if is_image_name(file.rpartition("/")[2]) or is_dicom_file(folder / file)]
    return images, sorted(set(files) - set(images))


def check_names(paths: Iterable[str]) -> None:
    """Raises DataError if a path is not valid Unicode, since outputs are UTF-8."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"The file name {path!r} is not valid Unicode. Rename it.") from None


def links_out(folder: Path, files: Iterable[Path]) -> list[str]:
    """Links below `folder`, relative to it, through which `files` are outside of it."""
    folder = os.path.normpath(folder)
    leads_out = cache(lambda path: _leads_out(path, os.path.realpath(folder)))
    found: dict[str, None] = {}
    for file in map(os.path.normpath, files):
        above = os.path.dirname(file)  # noqa: PTH120
        if is_dangling(Path(file)) or not file.startswith(os.path.join(folder, "")):  # noqa: PTH118
            continue
        link = above if leads_out(above) else file
        while leads_out(os.path.dirname(link)):  # noqa: PTH120
            link = os.path.dirname(link)  # noqa: PTH120
        if link == above or (os.path.islink(link) and leads_out(link)):  # noqa: PTH114
            found[os.path.relpath(link, folder)] = None
    return list(found)


def check_links(folder: Path, leaving: Sequence[str]) -> None:
    """Raises DataError if there are links, relative to `folder`, that point outside it."""
    if leaving:
        error = DataError(f"{links_note(folder, leaving)}. Copy their targets into the folder, or pass --outside-root.")
        error.kind = "links"
        raise error


def links_note(folder: Path, leaving: Sequence[str]) -> str:
    """How many links point outside `folder`, with an example."""
    count = "1 link points" if len(leaving) == 1 else f"{len(leaving)} links point"
    return f"{count} outside {folder}, such as {leaving[0]!r} to {os.path.realpath(folder / leaving[0])!r}"


def _leads_out(path: str, real_root: str) -> bool:
    return not os.path.join(os.path.realpath(path), "").startswith(os.path.join(real_root, ""))  # noqa: PTH118


def _listed(folder: Path, leaving: list[str] | None) -> list[str]:
    """The sorted files below `folder`; links out of it are added to `leaving`, or followed if that is None."""
    try:
        return sorted(_walk(str(folder), "", set(), os.path.realpath(folder), leaving))
    except OSError as error:
        raise DataError(f"Cannot list {error.filename}: {error.strerror}. Check its permissions.") from None


def _walk(
    folder: str, prefix: str, seen: set[tuple[int, int]], real_root: str, leaving: list[str] | None
) -> Iterator[str]:
    facts = os.stat(folder)  # noqa: PTH116
    if facts.st_ino and (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        hidden = entry.name.startswith(".")
        may_leave = leaving is None or hidden or not entry.is_symlink() or is_dangling(Path(entry.path))
        if not may_leave and _leads_out(entry.path, real_root):
            leaving.append(prefix + entry.name)
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            is_folder = is_file = False
        if is_folder:
            if hidden:
                continue
            yield from _walk(entry.path, f"{prefix}{entry.name}/", seen, real_root, leaving)
        elif is_file or is_dangling(Path(entry.path)):
            yield prefix + entry.name


@dataclass(frozen=True)
class FileIndex:
    """The files below a folder by the ends of their paths."""

    root: Path
    files: tuple[str, ...]  # relative to `root`
    by_end: dict[str, list[str]]  # "c.png", "b/c.png" … to the first two matches; images also without suffix
    leaving: Sequence[str] = ()  # links out of the folder, not followed

    def find(self, path: str) -> Path | None:
        """The file with the longest common end with `path`, at least the file name."""
        ends = (self.by_end[end] for end in _ends(path) if end in self.by_end)
        candidates = next(ends, [])
        if len(candidates) > 1:
            raise DataError(
                f"{path!r} is ambiguous: it matches {candidates[0]!r} and {candidates[1]!r} in {self.root}. "
                "Use an --image-root with only one of them, or longer paths in the table."
            )
        return self.root / candidates[0] if candidates else None


def index_files(root: Path, *, outside: bool = False) -> FileIndex:
    """The index of all files below `root`; links out of it are followed only with `outside`."""
    leaving: list[str] = []
    files = tuple(_listed(root, None if outside else leaving))
    by_end: dict[str, list[str]] = {}
    for file in files:
        names = [file, file.rpartition(".")[0]] if is_image_name(file.rpartition("/")[2]) else [file]
        for end in (end for name in names for end in _ends(name)):
            known = by_end.setdefault(end, [])
            if len(known) < 2:
                known.append(file)
    return FileIndex(root, files, by_end, leaving)


def find_files(
    paths: Sequence[str], *, image_root: str | None, table_folder: Path, outside: bool = False
) -> tuple[list[ImageRef | None], tuple[str, ...]]:
    """The file of each path (None: not found), and notes on how they were found.

    A path is used as it is if the file exists, absolute or relative to `image_root` (default: `table_folder`), else the
    file below the root with the longest common end is used, at least with the same name. `x.dcm#3` is frame 3 of
    `x.dcm` unless such a file exists. With an `image_root`, no path or link may point outside it, unless `outside`.
    """
    root = Path(image_root).expanduser().absolute() if image_root else table_folder.absolute()
    if not root.is_dir():
        raise DataError(
            f"--image-root {image_root} is not a folder. Give the folder of the table's images."
            f"{suggest_path(image_root or '')}",
            settings=("image_root",),
        )
    inside = image_root is not None and not outside
    files: list[ImageRef | None] = [_as_written(path, root, inside=inside) for path in paths]
    frames = {i: _FRAME.fullmatch(path) for i, path in enumerate(paths) if files[i] is None}
    for i, match in frames.items():
        if match and (file := _as_written(match["file"], root, inside=inside)):
            files[i] = FilePart(file, frame=int(match["frame"]) - 1)
    notes: list[str] = []
    if foreign := [i for i in frames if files[i] is None]:
        index = index_files(root, outside=outside)
        for i in foreign:
            file = index.find(frames[i]["file"] if frames[i] else paths[i])
            files[i] = FilePart(file, frame=int(frames[i]["frame"]) - 1) if file and frames[i] else file
        guessed, owner = set(foreign), {}
        for i, file in enumerate(files):
            other = i if file is None else owner.setdefault(file, i)
            if other != i and (i in guessed or other in guessed):
                raise DataError(
                    f"{paths[other]!r} and {paths[i]!r} both match {file_of(file)} by name. "
                    "Give an --image-root with both files, or correct the paths in the table."
                )
        missing = [paths[i] for i in foreign if files[i] is None]
        if found := len(foreign) - len(missing):
            images = sum(is_image_name(file.rpartition("/")[2]) for file in index.files)
            others = len(index.files) - images
            ignored = f"; files that are not images, ignored: {others}" if others else ""
            notes.append(f"{found} images found by file name among the {images} in {root}{ignored}")
        notes += _near_note(index, missing)
        if missing and index.leaving:
            notes.append(f"{links_note(root, index.leaving)}, not followed without --outside-root")
    real, out = os.path.join(os.path.realpath(root), ""), []  # noqa: PTH118
    for path, file in zip(paths, files, strict=True) if inside else ():
        there = _as_written(path, root, inside=False) if file is None else file_of(file)
        if there is not None and not is_dangling(there) and not os.path.realpath(there).startswith(real):
            out.append((path, there))
    if out:
        path, there = out[0]
        raise DataError(
            f"{len(out)} paths of the table point outside --image-root {root}, such as {path!r} to "
            f"{os.path.realpath(there)}. Name a folder with all images, correct the paths, or pass --outside-root."
        )
    return files, tuple(notes)


def unchanged_key(refs: Iterable[ImageRef], prefix: str = "") -> str:
    """A key of these files that changes with path, inode, size and times of each; OSError if one is missing."""
    digest = hashlib.sha256(prefix.encode())
    for ref in refs:
        status = file_of(ref).stat()
        times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"{ref} {times}\n".encode())
    return digest.hexdigest()[:32]


def image_identity(path: str, ref: ImageRef | None) -> Hashable:
    """A key that is equal for rows with the same file, also through links; the path if there is no file."""
    if ref is None:
        return path
    part = as_part(ref)
    try:
        facts = os.stat(part.path)  # noqa: PTH116
    except OSError:
        return path
    # Some Windows file systems give inode 0 for all files.
    return (facts.st_dev, facts.st_ino, part.offset) if facts.st_ino else path


def _as_written(path: str, root: Path, *, inside: bool) -> Path | None:
    """The file at `path`, with `inside` only if its path is below the root."""
    for text in dict.fromkeys((path, path.replace("\\", "/"), os.path.expanduser(path))):  # noqa: PTH111
        file = os.path.normpath(root / text)
        leaves = not file.startswith(os.path.join(root, ""))  # noqa: PTH118
        if not (inside and leaves) and (os.path.isfile(file) or is_dangling(Path(file))):  # noqa: PTH113
            return Path(file)
    return None


def _ends(path: str) -> Iterator[str]:
    """The ends of a path of any system, longest first, in Unicode NFC."""
    parts = [part for part in unicodedata.normalize("NFC", path).replace("\\", "/").split("/") if part]
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _near_note(index: FileIndex, missing: Sequence[str]) -> tuple[str, ...]:
    """A sentence on missing paths whose file exists under a name that differs in suffix, case or spelling."""
    known: dict[str, str] = {}
    for file in index.files:
        if is_image_name(file.rpartition("/")[2]) or format_by_name(file.rpartition("/")[2]):
            known.setdefault(_loose(file), file)
    near = [(path, known[_loose(path)]) for path in missing if _loose(path) in known]
    if not near:
        return ()
    (path, file), count = near[0], len(near)
    return (
        f"{count} of {len(missing)} missing images are in {index.root} under names that differ in suffix, case or "
        f"spelling, such as {file!r} for {path!r}; correct the names in the table",
    )


def _loose(path: str) -> str:
    """The name of an image without suffix, case, quotes and %20, with spaces for "_" and "-"."""
    name = unquote(path).strip(" \t'\"").replace("\\", "/").rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    if dot and (is_image_name(name) or format_by_name(name)):
        name = stem.removesuffix(".nii")
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()
