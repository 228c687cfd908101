"""Pretrained weights: where they are, whose they are, and how they get into a network.

Finds the file that `--weights` means: a known name, a path or a finished run.

The cards of known weight files, read from `weights/manifest.yaml`.

Files of the Hugging Face hub: `hf:OWNER/REPO/FILE[@REVISION]`, from its cache; downloaded only when told to.

Needs the extra `hub` (huggingface_hub), which is imported when such a name is given.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Literal

from radtransfer.config.yaml_text import parse_yaml
from radtransfer.errors import (
    RunError,
    UnknownNameError,
    WeightsError,
    WeightsMismatchError,
    WeightsNotFoundError,
    near_name,
    near_path,
)
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import keras_home
from radtransfer.runs.folder import finished_folds, read_run


@dataclass(frozen=True)
class WeightsCard:
    """What is known about one weights file.

    Attributes:
        name: As users give it, `<family>-<backbone>`.
        family: What it was trained on.
        backbone: Name of the network.
        origin: Where to get it.
        terms: One line.
        files: Names it goes by, the published one first.
        hashes: MD5 or SHA-256 of each of `files`, in their order; empty where nobody published any.
        layers: Layers with weights, without a head.
        preprocessing: Mode that it was trained with.
        certainty: How sure that is.
        reason: And why.
        keras: Whether Keras downloads it itself.
        top1: Published accuracy on the data it was trained on, a fraction.
        top5: The same, among the first five.
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


@functools.cache
def weights_cards() -> Mapping[str, WeightsCard]:
    """Every card by name."""
    text = resources.files("radtransfer.weights").joinpath("manifest.yaml").read_text(encoding="utf-8")
    manifest, _ = parse_yaml(text, source="weights/manifest.yaml")
    families = manifest["families"]
    return MappingProxyType({name: _card(name, entry, families) for name, entry in manifest["cards"].items()})


def card_named(weights: str, *, backbone: str | None = None) -> WeightsCard | None:
    """The card called `weights`, or, of a family ("imagenet"), the one for `backbone`."""
    cards = weights_cards()
    return cards.get(weights) or cards.get(f"{weights}-{backbone}")


def card_of_file(path: Path) -> WeightsCard | None:
    """The card that lists a file of this name, in any case of letters."""
    name = path.name.lower()
    return next((card for card in weights_cards().values() if name in map(str.lower, card.files)), None)


def _card(name: str, entry: dict, families: dict[str, dict]) -> WeightsCard:
    fields = families[entry["family"]] | entry
    listed = {key: tuple(fields.get(key, ())) for key in ("files", "hashes")}
    return WeightsCard(name=name, **fields | listed)


HUB = "hf:"
"""What such a name begins with."""


@dataclass(frozen=True)
class HubFile:
    """One file of one repository.

    Attributes:
        given: What the user said.
        repo: OWNER/REPO.
        name: Path of the file in it.
        revision: Branch, tag or commit; None for the main one.
    """

    given: str
    repo: str
    name: str
    revision: str | None

    @property
    def fetch_line(self) -> str:
        return f"radtransfer weights fetch {self.given} --download"


def hub_file(given: str) -> HubFile:
    """What `given` names.

    Raises:
        WeightsError: It is not of the form hf:OWNER/REPO/FILE[@REVISION].
    """
    part = r"[\w.-]+"
    found = re.fullmatch(rf"hf:({part}/{part})/((?:{part}/)*{part})(?:@([\w./-]+))?", given)
    if found is None or ".." in given:
        raise WeightsError(f"expected hf:OWNER/REPO/FILE, or hf:OWNER/REPO/FILE@REVISION. Received: {given}.")
    return HubFile(given, *found.groups())


def cached_hub_file(given: str) -> Path:
    """Where `given` lies on this machine.

    Raises:
        WeightsNotFoundError: It was not downloaded; says the command that does.
        WeightsError: Not a name of this form, or huggingface_hub is not installed.
    """
    wanted = hub_file(given)
    path = _in_cache(wanted, _hub())
    if path is None:
        raise WeightsNotFoundError(
            f"{given} is not in the hub's cache, and nothing is downloaded unasked. Run: {wanted.fetch_line}"
        )
    return path


def size_of(wanted: HubFile) -> int | None:
    """Bytes, as the hub says; None where it does not.

    Raises:
        WeightsError: The hub cannot be reached, or has no such file.
    """
    hub = _hub()
    try:
        url = hub.hf_hub_url(wanted.repo, wanted.name, revision=wanted.revision)
        return hub.get_hf_file_metadata(url).size
    except Exception as error:  # the hub's errors derive from those of whichever HTTP library it uses
        raise WeightsError(_unreachable(wanted, error)) from None


def download(wanted: HubFile) -> Path:
    """Where the file lies after it was downloaded to the hub's cache.

    Raises:
        WeightsError: The hub cannot be reached, has no such file, or wants a login.
    """
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(wanted.repo, wanted.name, revision=wanted.revision))
    except Exception as error:  # as above
        raise WeightsError(_unreachable(wanted, error)) from None


def in_cache(wanted: HubFile) -> Path | None:
    """Where the file lies if it was downloaded before."""
    return _in_cache(wanted, _hub())


def _in_cache(wanted: HubFile, hub: ModuleType) -> Path | None:
    found = hub.try_to_load_from_cache(wanted.repo, wanted.name, revision=wanted.revision)
    return Path(found) if isinstance(found, str) else None


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError("hf: needs huggingface_hub. Install it: pip install 'radtransfer[hub]'.") from None
    return huggingface_hub


def _unreachable(wanted: HubFile, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"could not get {wanted.name} of {wanted.repo} ({reason}). On a machine with network download the file "
        "and pass its path."
    )


SEARCH_VARIABLE = "RADTRANSFER_WEIGHTS"
"""Environment variable that names a folder of weight files."""

WAYS = "a name from `radtransfer weights list`, a Keras file, hf:REPO/FILE, or RUN[/fold_K]"

Certainty = Literal["card", "run", "assumed"]
"""Known from the manifest, from the run that made the weights, or the backbone's own, for want of better."""

_SUFFIXES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class WeightSource:
    """Where weights come from.

    Attributes:
        given: What the user said.
        file: The file; for Keras' own weights it may still have to be downloaded.
        card: From the manifest, if the file is known.
        record: What `run.json` says, if the file is a run's.
    """

    given: str
    file: Path
    card: WeightsCard | None = None
    record: dict | None = None

    @property
    def backbone(self) -> str | None:
        """The network it is for, where that is known without opening the file; a file's name is no proof."""
        if self.record:
            return self.record.get("backbone")
        return self.card.backbone if self.card and self.given == self.card.name else None

    def preprocessing_for(self, backbone: str) -> tuple[str, Certainty]:
        """The mode that the weights, found to be for `backbone`, were trained with, and how that is known."""
        if self.record and self.record.get("preprocessing"):
            return self.record["preprocessing"], "run"
        # A file that turns out to be another network's has lost its card.
        if self.card and self.card.backbone == backbone:
            return self.card.preprocessing, "card"
        return BACKBONES[backbone].preprocessing, "assumed"

    @property
    def terms(self) -> str | None:
        return self.card.terms if self.card else None


def find_weights(weights: str, *, backbone: str | None = None) -> WeightSource:
    """The source that `weights` means; a family ("imagenet") means its weights for `backbone`.

    Raises:
        WeightsNotFoundError: No such file; says what is there instead and where to get known ones.
        WeightsError: A folder that is no finished run, or a run of several folds and none is named.
    """
    card = card_named(weights, backbone=backbone)
    if card is not None:
        return WeightSource(weights, _file_of(card), card)
    if weights.startswith(HUB):
        path = cached_hub_file(weights)
        return WeightSource(weights, path, card_of_file(path))
    path = Path(weights).expanduser()
    for run, fold in ((path, None), (path.parent, path)):
        if (run / "run.json").is_file() and (fold is None or path.name.startswith("fold_")):
            record = _finished_record(run, fold)
            return WeightSource(weights, _model_of(run, fold), record=record)
    if path.is_dir():
        raise WeightsError(_not_a_run(path))
    if not path.exists():
        path = _in_search_folder(path)
    if path is None:
        raise WeightsNotFoundError(_not_found(weights))
    return WeightSource(weights, path, card_of_file(path), _record_around(path))


def absolute_weights(weights: str, *, backbone: str) -> str:
    """`weights` as they mean the same from every folder; names stay names."""
    path = Path(weights).expanduser()
    is_name = weights == "random" or card_named(weights, backbone=backbone) is not None
    return weights if is_name or not path.exists() else str(path.absolute())


def check_backbone(source: WeightSource, backbone: str) -> None:
    """Raises WeightsMismatchError if it is known without opening the file that it is for another network."""
    found = source.backbone
    if found not in (None, backbone):
        raise WeightsMismatchError(f"{source.given} is for {found}; --backbone is {backbone}. Use --backbone {found}.")


def check_imagenet_exists(weights: str, backbone: str) -> None:
    """Raises WeightsError if there are no ImageNet weights of `backbone`, and they are asked for."""
    if weights == "imagenet" and not BACKBONES[backbone].pretrained:
        having = ", ".join(name for name, card in BACKBONES.items() if card.pretrained)
        raise WeightsError(
            f"there are no ImageNet weights of {backbone}. Use --weights random, or a --backbone of {having}."
        )


def resolve_weights(weights: str, *, backbone: str) -> WeightSource | None:
    """Where `weights` are, checked as far as that needs no network; None for random ones.

    Raises:
        WeightsError: Not found, no weights at all, or known to be another network's.
    """
    if weights == "random":
        return None
    check_imagenet_exists(weights, backbone)
    source = find_weights(weights, backbone=backbone)
    check_backbone(source, backbone)
    if source.file.exists():
        from radtransfer.pretrained.read import check_is_weights

        check_is_weights(source.file)
    return source


def preprocessing_of(weights: str, *, backbone: str) -> str | None:
    """The mode that `weights` were trained with, before they are read; None for random ones. Errors as above."""
    source = resolve_weights(weights, backbone=backbone)
    return None if source is None else source.preprocessing_for(backbone)[0]


def search_folders() -> tuple[Path, ...]:
    """Where a known file that was not given with its path is looked for."""
    named = os.environ.get(SEARCH_VARIABLE)
    return tuple(Path(folder).expanduser() for folder in ([named] if named else []) + ["."])


def keras_cache() -> Path:
    """Where Keras keeps what it downloads."""
    return keras_home() / "models"


def found_files() -> dict[str, Path]:
    """The known weights that are on this machine, by name."""
    found = {card.name: _existing(card) for card in weights_cards().values()}
    return {name: path for name, path in found.items() if path is not None}


def _folders(card: WeightsCard) -> tuple[Path, ...]:
    # RadImageNet's zip unpacks into a folder of this name.
    folders = tuple(inner for folder in search_folders() for inner in (folder, folder / "RadImageNet_models"))
    return (*folders, keras_cache()) if card.keras else folders


def _existing(card: WeightsCard) -> Path | None:
    paths = (folder / name for folder in _folders(card) for name in card.files)
    return next((path for path in paths if path.is_file()), None)


def _file_of(card: WeightsCard) -> Path:
    path = _existing(card)
    if path is None and not card.keras:
        folders = " or ".join(str(folder.resolve()) for folder in search_folders())
        raise WeightsNotFoundError(f"no {card.files[0]} in {folders}. {_advice(card)}")
    return path or keras_cache() / card.files[0]


def _advice(card: WeightsCard) -> str:
    return (
        f"These weights are not bundled (data-use terms). Get them from {card.origin} "
        f"and pass --weights PATH, or set {SEARCH_VARIABLE} to their folder."
    )


def _in_search_folder(path: Path) -> Path | None:
    """A bare file name is also looked for where known files are."""
    if path.name != str(path):
        return None
    return next((folder / path for folder in search_folders() if (folder / path).is_file()), None)


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
    return f"no weights at {path}.{near_path(path)} Expected {WAYS}."


def _sibling(path: Path) -> str | None:
    """The file beside a missing one that is meant: - for _, other case, or a slip of the finger."""
    return near_name(path, wanted=lambda item: item.suffix in _SUFFIXES)


def _finished_record(run: Path, fold: Path | None) -> dict:
    """The record of a finished run, or of one whose `fold` is finished."""
    try:
        record = read_run(run)
    except RunError as error:
        raise WeightsError(str(error)) from None
    if record.get("status") != "finished" and fold not in finished_folds(run).values():
        raise WeightsError(
            f"run {run} is not finished (status: {record.get('status')}). Finish it with --resume, "
            "or pass one of its files."
        )
    return record


def _model_of(run: Path, fold: Path | None) -> Path:
    """The model of `fold`, or of the only fold there is."""
    folds = list(finished_folds(run).values())
    listed = ", ".join(map(str, folds)) or "none"
    if fold is None and len(folds) != 1:
        raise WeightsError(f"run {run} has {len(folds)} finished folds; which one? Pass one of: {listed}.")
    if fold is not None and fold not in folds:
        raise WeightsError(f"there is no finished fold {fold}. Pass one of: {listed}.")
    return (fold or folds[0]) / "model.keras"


def _not_a_run(path: Path) -> str:
    files = sorted(item.name for item in path.iterdir() if item.suffix in _SUFFIXES)
    if (path / "saved_model.pb").is_file():
        return (
            f"{path} is a SavedModel folder. Make a Keras file of its weights: "
            f"radtransfer weights convert {path} OUT.weights.h5"
        )
    if files:
        return f"{path} is a folder, not a run. It holds {', '.join(files[:5])}; pass one of them."
    return f"{path} is a folder, not a run: expected a run.json in it. Pass {WAYS}."


def _record_around(path: Path) -> dict | None:
    """The record of the run whose fold holds `path`: its files share the run's preprocessing."""
    run = path.resolve().parent.parent
    if not path.resolve().parent.name.startswith("fold_") or not (run / "run.json").is_file():
        return None
    try:
        return read_run(run)
    except RunError as error:
        raise WeightsError(str(error)) from None
