"""Which file `--weights` means: a known name, a path, a finished run or a file of the Hugging Face hub.

Resolved once, at the door; what is found travels as a `WeightSource`. The known weight files stand in
`weights/manifest.yaml`. Files of the hub, `hf:OWNER/REPO/FILE[@REVISION]`, come from its cache and are downloaded only
when told to; they need the extra `hub`, which is imported when such a name is given.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Literal

from radtransfer.config.yaml_text import parse_yaml
from radtransfer.errors import (
    DiskError,
    RunError,
    UnknownNameError,
    WeightsError,
    WeightsMismatchError,
    WeightsNotFoundError,
    closest_file_name,
    suggest_path,
)
from radtransfer.files import write_error
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import keras_home
from radtransfer.runs.folder import finished_folds, read_run

HUB = "hf:"
"""What the name of a file of the hub begins with."""

SEARCH_VARIABLE = "RADTRANSFER_WEIGHTS"
"""Environment variable that names a folder of weight files."""

WAYS = "a name from `radtransfer weights list`, a Keras file, hf:REPO/FILE, or RUN[/fold_K]"

Certainty = Literal["card", "run", "assumed"]
"""Known from the manifest, from the run that made the weights, or the backbone's own, for want of better."""

_SUFFIXES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class WeightsCard:
    """What is known about one weights file.

    Attributes:
        name: As users give it, `<family>-<backbone>`.
        files: Names it goes by, the published one first.
        hashes: MD5 or SHA-256 of each of `files`, in their order; empty where nobody published any.
        layers: Layers with weights, without a head.
        preprocessing: Mode that it was trained with.
        keras: Whether Keras downloads it itself.
    """

    name: str
    family: str
    backbone: str
    origin: str
    terms: str
    files: tuple[str, ...]
    layers: int
    preprocessing: str
    certainty: Literal["certain", "likely"]
    reason: str
    keras: bool = False
    top1: float | None = None
    top5: float | None = None
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightSource:
    """Where weights come from.

    Attributes:
        file: The file; for Keras' own weights it may still have to be downloaded.
        card: From the manifest, if the file is known.
        record: What `run.json` says, if the file is a run's.
    """

    given: str
    file: Path
    card: WeightsCard | None = None
    record: dict | None = None

    @property
    def terms(self) -> str | None:
        return self.card.terms if self.card else None

    def preprocessing_for(self, backbone: str) -> tuple[str, Certainty]:
        """The mode that the weights, found to be for `backbone`, were trained with, and how that is known."""
        if self.record and self.record.get("preprocessing"):
            return self.record["preprocessing"], "run"
        # A file that turns out to be another network's has lost its card.
        if self.card and self.card.backbone == backbone:
            return self.card.preprocessing, "card"
        return BACKBONES[backbone].preprocessing, "assumed"


@functools.cache
def weights_cards() -> Mapping[str, WeightsCard]:
    text = resources.files("radtransfer.weights").joinpath("manifest.yaml").read_text(encoding="utf-8")
    manifest, _ = parse_yaml(text, source="weights/manifest.yaml")
    cards = {}
    for name, entry in manifest["cards"].items():
        fields = manifest["families"][entry["family"]] | entry
        listed = {key: tuple(fields.get(key, ())) for key in ("files", "hashes")}
        cards[name] = WeightsCard(name=name, **fields | listed)
    return MappingProxyType(cards)


def card_named(weights: str, *, backbone: str | None = None) -> WeightsCard | None:
    """The card called `weights`, or, of a family ("imagenet"), the one for `backbone`."""
    cards = weights_cards()
    return cards.get(weights) or cards.get(f"{weights}-{backbone}")


def card_of_file(path: Path) -> WeightsCard | None:
    """The card that lists a file of this name, in any case of letters."""
    name = path.name.lower()
    return next((card for card in weights_cards().values() if name in map(str.lower, card.files)), None)


def resolve_weights(weights: str | None, *, backbone: str) -> WeightSource | None:
    """What the weights of a network mean, None for random ones; raises WeightsError as `find_weights`."""
    if weights in (None, "random"):
        return None
    source = find_weights(weights, backbone=backbone)
    if source.file.exists():
        from radtransfer.pretrained.read import check_is_weights  # imports NumPy and h5py

        check_is_weights(source.file)
    return source


def find_weights(weights: str, *, backbone: str | None = None) -> WeightSource:
    """The source that `weights` means; a family ("imagenet") means its weights for `backbone`.

    Raises:
        WeightsNotFoundError: No such file; says what is there instead and where to get known ones.
        WeightsMismatchError: Known without opening the file to be for another network than `backbone`.
        WeightsError: A folder that is no finished run, or a run of several folds and none is named.
    """
    if weights == "imagenet" and backbone is not None and not BACKBONES[backbone].pretrained:
        having = ", ".join(name for name, spec in BACKBONES.items() if spec.pretrained)
        raise WeightsError(
            f"there are no ImageNet weights of {backbone}. Use --weights random, or a --backbone of {having}."
        )
    source = _find(weights, backbone)
    found = source.card.backbone if source.card and weights == source.card.name else None  # a file's name is no proof
    if source.record:
        found = source.record.get("backbone")
    if backbone is not None and found not in (None, backbone):
        raise WeightsMismatchError(f"{weights} is for {found}; --backbone is {backbone}. Use --backbone {found}.")
    return source


def absolute_weights(weights: str, *, backbone: str) -> str:
    """`weights` as they mean the same from every folder; names stay names."""
    path = Path(weights).expanduser()
    is_name = weights == "random" or card_named(weights, backbone=backbone) is not None
    return weights if is_name or not path.exists() else str(path.absolute())


def search_folders() -> tuple[Path, ...]:
    """Where a known file that was not given with its path is looked for."""
    named = os.environ.get(SEARCH_VARIABLE)
    return tuple(Path(folder).expanduser() for folder in ([named] if named else []) + ["."])


def keras_cache() -> Path:
    return keras_home() / "models"


def found_files() -> dict[str, Path]:
    """The known weights that are on this machine, by name."""
    found = {card.name: _existing(card) for card in weights_cards().values()}
    return {name: path for name, path in found.items() if path is not None}


def fetch(source: WeightSource, notify: Callable[[str], None]) -> None:
    """Let Keras download its own ImageNet weights into its cache, if they are not there; it checks their hash.

    Raises:
        WeightsError: They cannot be downloaded, or are not Keras' own.
    """
    if source.file.exists():
        return
    application = BACKBONES[source.card.backbone].application if source.card and source.card.keras else None
    if application is None:
        raise WeightsError(f"{source.given} has no {source.file.name}: expected {source.file}.")
    from keras import applications

    notify(f"downloading {source.file.name} from {source.card.origin} to {source.file.parent}")
    reason = "Keras did not put it there"
    try:
        keras_home().mkdir(parents=True, exist_ok=True)  # else Keras takes a folder in /tmp
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its progress bar on stdout
            getattr(applications, application)(weights="imagenet", include_top=False)
        if source.file.exists():
            return
    except Exception as error:  # Keras raises a bare Exception when there is no network
        if isinstance(told := write_error(source.file, error), DiskError):
            raise told from error
        reason = str(error)
    raise WeightsError(
        f"could not download {source.file.name} ({reason}). On a machine with network get "
        f"{source.card.origin}{source.file.name} and pass its path to --weights, or use --weights random."
    )


@dataclass(frozen=True)
class HubFile:
    """One file of one repository of the hub; `revision` is a branch, tag or commit, None for the main branch."""

    given: str
    repo: str
    name: str
    revision: str | None

    @property
    def fetch_line(self) -> str:
        return f"radtransfer weights fetch {self.given} --download"

    def cached(self) -> Path | None:
        """Where the file lies if it was downloaded before."""
        found = _hub().try_to_load_from_cache(self.repo, self.name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def size(self) -> int | None:
        """Bytes, as the hub says; None where it does not. Raises WeightsError as `download`."""
        hub = _hub()
        with self._errors():
            return hub.get_hf_file_metadata(hub.hf_hub_url(self.repo, self.name, revision=self.revision)).size

    def download(self) -> Path:
        """Where the file lies after its download; raises WeightsError if the hub does not give it."""
        hub = _hub()
        with self._errors():
            return Path(hub.hf_hub_download(self.repo, self.name, revision=self.revision))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the hub's errors derive from those of whichever HTTP library it uses
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"could not get {self.name} of {self.repo} ({reason}). On a machine with network download the file "
                "and pass its path."
            ) from None


def hub_file(given: str) -> HubFile:
    """The file named hf:OWNER/REPO/FILE[@REVISION]; raises WeightsError for another form."""
    part = r"[\w.-]+"
    found = re.fullmatch(rf"hf:({part}/{part})/((?:{part}/)*{part})(?:@([\w./-]+))?", given)
    if found is None or ".." in given:
        raise WeightsError(f"expected hf:OWNER/REPO/FILE, or hf:OWNER/REPO/FILE@REVISION. Received: {given}.")
    return HubFile(given, *found.groups())


def cached_hub_file(given: str) -> Path:
    """Where `given` lies on this machine; raises WeightsError if it is not there, or no name of a hub file."""
    wanted = hub_file(given)
    path = wanted.cached()
    if path is None:
        raise WeightsNotFoundError(
            f"{given} is not in the hub's cache, and nothing is downloaded unasked. Run: {wanted.fetch_line}"
        )
    return path


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError("hf: needs huggingface_hub. Install it: pip install 'radtransfer[hub]'.") from None
    return huggingface_hub


def _find(weights: str, backbone: str | None) -> WeightSource:
    card = card_named(weights, backbone=backbone)
    if card is not None:
        path = _existing(card)
        if path is None and not card.keras:
            folders = " or ".join(str(folder.resolve()) for folder in search_folders())
            raise WeightsNotFoundError(f"no {card.files[0]} in {folders}. {_advice(card)}")
        return WeightSource(weights, path or keras_cache() / card.files[0], card)
    if weights.startswith(HUB):
        path = cached_hub_file(weights)
        return WeightSource(weights, path, card_of_file(path))
    path = Path(weights).expanduser()
    for run, fold in ((path, None), (path.parent, path)):
        if (run / "run.json").is_file() and (fold is None or path.name.startswith("fold_")):
            return _of_run(weights, run, fold)
    if path.is_dir():
        files = sorted(item.name for item in path.iterdir() if item.suffix in _SUFFIXES)
        if (path / "saved_model.pb").is_file():
            raise WeightsError(
                f"{path} is a SavedModel folder. Make a Keras file of its weights: "
                f"radtransfer weights convert {path} OUT.weights.h5"
            )
        if files:
            raise WeightsError(f"{path} is a folder, not a run. It holds {', '.join(files[:5])}; pass one of them.")
        raise WeightsError(f"{path} is a folder, not a run: expected a run.json in it. Pass {WAYS}.")
    if not path.exists():
        # A bare file name is also looked for where known files are.
        places = (folder / path for folder in search_folders() if path.name == str(path))
        path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise WeightsNotFoundError(_not_found(weights))
    # The files of a fold share the preprocessing of its run.
    run = path.resolve().parent.parent
    is_in_run = path.resolve().parent.name.startswith("fold_") and (run / "run.json").is_file()
    return WeightSource(weights, path, card_of_file(path), _record_of(run) if is_in_run else None)


def _of_run(weights: str, run: Path, fold: Path | None) -> WeightSource:
    """The model of `fold`, or of the only fold there is."""
    record, folds = _record_of(run), list(finished_folds(run).values())
    if record.get("status") != "finished" and fold not in folds:
        raise WeightsError(
            f"run {run} is not finished (status: {record.get('status')}). Finish it with --resume, "
            "or pass one of its files."
        )
    listed = ", ".join(map(str, folds)) or "none"
    if fold is None and len(folds) != 1:
        raise WeightsError(f"run {run} has {len(folds)} finished folds; which one? Pass one of: {listed}.")
    if fold is not None and fold not in folds:
        raise WeightsError(f"there is no finished fold {fold}. Pass one of: {listed}.")
    return WeightSource(weights, (fold or folds[0]) / "model.keras", record=record)


def _record_of(run: Path) -> dict:
    try:
        return read_run(run)
    except RunError as error:
        raise WeightsError(str(error)) from None


def _existing(card: WeightsCard) -> Path | None:
    # RadImageNet's zip unpacks into a folder of this name.
    folders = [inner for folder in search_folders() for inner in (folder, folder / "RadImageNet_models")]
    paths = (folder / name for folder in folders + [keras_cache()] * card.keras for name in card.files)
    return next((path for path in paths if path.is_file()), None)


def _advice(card: WeightsCard) -> str:
    return (
        f"These weights are not bundled (data-use terms). Get them from {card.origin} "
        f"and pass --weights PATH, or set {SEARCH_VARIABLE} to their folder."
    )


def _not_found(weights: str) -> str:
    if weights == "random":
        return f"random weights are in no file. Expected {WAYS}."
    path = Path(weights).expanduser()
    if sibling := _sibling(path):
        return f"no weights at {path}. Found {sibling} in the same folder; did you mean that?"
    for folder in search_folders() if path.name == weights else ():
        if sibling := _sibling(folder / path):
            return f"no weights at {path}. Found {folder / sibling}; did you mean that?"
    if not path.suffix and path.name == weights:
        unknown = UnknownNameError("weights", weights, ["random", "imagenet", *weights_cards()])
        return f"{unknown} Expected {WAYS}."
    if "radimagenet" in weights.lower():
        card = card_of_file(path) or weights_cards()["radimagenet-resnet50"]
        return f"no weights at {path}. {_advice(card)}"
    return f"no weights at {path}.{suggest_path(path)} Expected {WAYS}."


def _sibling(path: Path) -> str | None:
    """The file beside a missing one that is probably meant: - for _, other case, or a typing error."""
    return closest_file_name(path, wanted=lambda item: item.suffix in _SUFFIXES)
