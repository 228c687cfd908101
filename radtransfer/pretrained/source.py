"""Finds the file that `--weights` names: a known name, a path, a finished run or a file of the Hugging Face hub.

A name is resolved once, to a `WeightSource`. Known weight files are listed in `weights/manifest.yaml`. Files of the
hub, `hf:OWNER/REPO/FILE[@REVISION]`, are read from its cache and downloaded only on request; they need the extra `hub`.
"""

import contextlib
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal

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
from radtransfer.files import atomic_write, write_error, writing
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.pretrained.any_network import KERAS
from radtransfer.process import keras_home
from radtransfer.runs.cache import cache_folder
from radtransfer.runs.folder import finished_folds, read_run

HUB = "hf:"
"""Prefix of the name of a file of the hub."""

SEARCH_VARIABLE = "RADTRANSFER_WEIGHTS"
"""Environment variable that names a folder of weight files."""

WAYS = "a name from `radtransfer weights list`, a Keras or PyTorch file, hf:REPO/FILE, or RUN[/fold_K]"

Certainty = Literal["card", "run", "assumed"]
"""The origin of a preprocessing: the manifest ("card"), the run of the weights, or assumed from the backbone."""

_SUFFIXES = (".h5", ".hdf5", ".keras", ".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class WeightsSpec:
    """An entry of the manifest of known weight files."""

    name: str  # <family>-<backbone>
    family: str
    backbone: str
    origin: str
    terms: str
    files: tuple[str, ...]  # file names, the published one first
    layers: int  # with weights, without a head
    preprocessing: str  # mode that the weights were trained with
    certainty: Literal["certain", "likely"]
    reason: str
    keras: bool = False  # whether Keras downloads the file
    top1: float | None = None
    top5: float | None = None
    hashes: tuple[str, ...] = ()  # MD5 or SHA-256 of each of `files`; empty if none are published


@dataclass(frozen=True)
class WeightSource:
    """A resolved weights file."""

    given: str  # the name as the user gave it
    file: Path  # Keras' own weights may not be downloaded yet
    spec: WeightsSpec | None = None  # of a known file
    record: dict | None = None  # the `run.json` of a file of a run
    application: str | None = None  # class of `keras.applications` whose ImageNet weights Keras has to load first

    @property
    def terms(self) -> str | None:
        return self.spec.terms if self.spec else None

    def preprocessing_for(self, backbone: str) -> tuple[str, Certainty]:
        """The mode that the weights, which are for `backbone`, were trained with, and where it is known from."""
        if self.record and self.record.get("preprocessing"):
            return self.record["preprocessing"], "run"
        if self.spec and self.spec.backbone == backbone:
            return self.spec.preprocessing, "card"
        return self._recorded.get("preprocessing") or BACKBONES[backbone].preprocessing, "assumed"

    def network(self, backbone: str) -> Backbone:
        """The spec of `backbone`, with the options that these weights need, such as the epsilon of their norms."""
        spec = BACKBONES[backbone]
        options = (self.record or self._recorded).get("options") if spec.patch else None
        return spec.with_options(**options or {})

    @functools.cached_property
    def _recorded(self) -> Mapping[str, Any]:
        """What a converted or PyTorch file says of its network."""
        if not self.file.is_file():
            return {}
        from radtransfer.pretrained.torch_file import is_pytorch, read_pytorch

        if is_pytorch(self.file):
            from radtransfer.pretrained.vit_weights import find_vit

            found = find_vit(self.file, read_pytorch(self.file))
            return {"options": found.options, "preprocessing": found.preprocessing} if found else {}
        from radtransfer.pretrained.read import recorded_network

        return recorded_network(self.file) if self.file.suffix == ".h5" else {}


@functools.cache
def known_weights() -> Mapping[str, WeightsSpec]:
    """The entries of the manifest by name."""
    text = resources.files("radtransfer.weights").joinpath("manifest.yaml").read_text(encoding="utf-8")
    manifest, _ = parse_yaml(text, source="weights/manifest.yaml")
    specs = {}
    for name, entry in manifest["cards"].items():
        fields = manifest["families"].get(entry["family"], {}) | entry
        listed = {key: tuple(fields.get(key, ())) for key in ("files", "hashes")}
        specs[name] = WeightsSpec(name=name, **fields | listed)
    return MappingProxyType(specs)


def spec_named(weights: str, *, backbone: str | None = None) -> WeightsSpec | None:
    """The spec named `weights`; for a family ("imagenet"), the one for `backbone`."""
    specs = known_weights()
    return specs.get(weights) or specs.get(f"{weights}-{backbone}")


def spec_of_file(path: Path) -> WeightsSpec | None:
    """The spec that lists this file name, in upper or lower case."""
    name = path.name.lower()
    return next((spec for spec in known_weights().values() if name in map(str.lower, spec.files)), None)


def resolve_weights(weights: str | None, *, backbone: str) -> WeightSource | None:
    """The source of `weights`, None for random ones; raises WeightsError as `find_weights`."""
    if weights in (None, "random"):
        return None
    source = find_weights(weights, backbone=backbone)
    if source.file.exists():
        from radtransfer.pretrained.read import check_is_weights  # imports NumPy and h5py
        from radtransfer.pretrained.torch_file import is_pytorch

        if not is_pytorch(source.file):
            check_is_weights(source.file)
    return source


def find_weights(weights: str, *, backbone: str | None = None) -> WeightSource:
    """The source that `weights` names; for a family ("imagenet"), its weights for `backbone`.

    Raises:
        WeightsNotFoundError: No such file; the message suggests similar files and where to get known ones.
        WeightsMismatchError: The weights are known to be for another network than `backbone`.
        WeightsError: A folder that is not a finished run, or a run with several folds of which none is named.
    """
    if weights == "imagenet" and backbone is not None and not BACKBONES[backbone].pretrained:
        available = ", ".join(name for name, spec in BACKBONES.items() if spec.pretrained)
        raise WeightsError(
            f"there are no ImageNet weights for {backbone}. Use --weights random, or --backbone {available}."
        )
    source = _find(weights, backbone)
    # Only a name from the manifest proves the network, a file name does not.
    found = source.spec.backbone if source.spec and weights == source.spec.name else None
    if source.record:
        found = source.record.get("backbone")
    if backbone is not None and found not in (None, backbone):
        raise WeightsMismatchError(f"{weights} is for {found}; --backbone is {backbone}. Use --backbone {found}.")
    return source


def absolute_weights(weights: str, *, backbone: str) -> str:
    """`weights` with an absolute path; names are unchanged."""
    path = Path(weights).expanduser()
    is_name = weights == "random" or spec_named(weights, backbone=backbone) is not None
    return weights if is_name or not path.exists() else str(path.absolute())


def search_folders() -> tuple[Path, ...]:
    """The folders in which a known file is searched when only its name is given."""
    named = os.environ.get(SEARCH_VARIABLE)
    return tuple(Path(folder).expanduser() for folder in ([named] if named else []) + ["."])


def keras_cache() -> Path:
    return keras_home() / "models"


def found_files() -> dict[str, Path]:
    """The known weights on this machine: name to file."""
    found = {spec.name: _existing(spec) for spec in known_weights().values()}
    return {name: path for name, path in found.items() if path is not None}


def fetch(source: WeightSource, notify: Callable[[str], None]) -> None:
    """Download Keras' own ImageNet weights into its cache, if they are missing; Keras checks their hash.

    Raises WeightsError if the file is missing and is not one of Keras, or the download fails.
    """
    if source.file.exists():
        return
    if source.application is not None:
        _write_application(source, notify)
        return
    application = BACKBONES[source.spec.backbone].application if source.spec and source.spec.keras else None
    if application is None:
        raise WeightsError(f"{source.given} lacks {source.file.name}: expected {source.file}.")
    from keras import applications

    notify(f"downloading {source.file.name} from {source.spec.origin} to {source.file.parent}")
    reason = "Keras did not create the file"
    try:
        keras_home().mkdir(parents=True, exist_ok=True)  # otherwise Keras uses a folder in /tmp
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its progress bar on stdout
            getattr(applications, application)(weights="imagenet", include_top=False)
        if source.file.exists():
            return
    except Exception as error:  # Keras raises a bare Exception without network
        if isinstance(disk_error := write_error(source.file, error), DiskError):
            raise disk_error from error
        reason = str(error)
    raise WeightsError(
        f"could not download {source.file.name} ({reason}). On a machine with internet access, get "
        f"{source.spec.origin}{source.file.name} and pass its path to --weights, or use --weights random."
    )


def _write_application(source: WeightSource, notify: Callable[[str], None]) -> None:
    """Let Keras load its own ImageNet weights of any application, and keep them as a file of ours."""
    from keras import applications

    notify(f"Keras loads its ImageNet weights of {source.application}, from its cache or the network")
    try:
        keras_home().mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            model = getattr(applications, source.application)(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises a bare Exception when there is no network
        raise WeightsError(
            f"Keras could not load its ImageNet weights of {source.application} ({error}). Run it once with "
            f"network access and copy {keras_cache()} from there, or use --weights random."
        ) from None
    with writing(source.file):
        source.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(source.file) as part:
            model.save_weights(part)


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the hub; `revision` is a branch, tag or commit, None for the main branch."""

    given: str
    repo: str
    name: str
    revision: str | None

    @property
    def fetch_line(self) -> str:
        return f"radtransfer weights fetch {self.given} --download"

    def cached(self) -> Path | None:
        """The path of the file, if it was downloaded before."""
        found = _hub().try_to_load_from_cache(self.repo, self.name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def size(self) -> int | None:
        """The size in bytes, None if the hub does not say; raises WeightsError as `download`."""
        hub = _hub()
        with self._errors():
            return hub.get_hf_file_metadata(hub.hf_hub_url(self.repo, self.name, revision=self.revision)).size

    def download(self) -> Path:
        """Download the file and return its path; raises WeightsError if that fails."""
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
                f"could not get {self.name} of {self.repo} ({reason}). Download the file on a machine with internet "
                "access and pass its path."
            ) from None


def hub_file(given: str) -> HubFile:
    """Parse hf:OWNER/REPO/FILE[@REVISION]; raises WeightsError if it has another form."""
    part = r"[\w.-]+"
    found = re.fullmatch(rf"hf:({part}/{part})/((?:{part}/)*{part})(?:@([\w./-]+))?", given)
    if found is None or ".." in given:
        raise WeightsError(f"expected hf:OWNER/REPO/FILE, or hf:OWNER/REPO/FILE@REVISION. Received: {given}.")
    return HubFile(given, *found.groups())


def cached_hub_file(given: str) -> Path:
    """The path of `given` in the cache of the hub; raises WeightsError if it was not downloaded before."""
    wanted = hub_file(given)
    path = wanted.cached()
    if path is None:
        raise WeightsNotFoundError(
            f"{given} is not in the hub's cache, and files are downloaded only on request. Run: {wanted.fetch_line}"
        )
    return path


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError("hf: needs huggingface_hub. Install it: pip install 'radtransfer[hub]'.") from None
    return huggingface_hub


def _find(weights: str, backbone: str | None) -> WeightSource:
    if weights == "imagenet" and backbone is not None and backbone.startswith(KERAS):
        name = backbone.removeprefix(KERAS)
        file = cache_folder() / "networks" / f"{name}-imagenet-keras{version('keras')}.weights.h5"
        return WeightSource(weights, file, application=name)
    spec = spec_named(weights, backbone=backbone)
    if spec is not None:
        path = _existing(spec)
        if path is None and not spec.keras:
            folders = " or ".join(str(folder.resolve()) for folder in search_folders())
            if spec.files[0].startswith(HUB):
                raise WeightsNotFoundError(
                    f"{spec.files[0]} is not in the hub's cache, and nothing is downloaded unasked. "
                    f"Terms: {spec.terms} Run: {hub_file(spec.files[0]).fetch_line}"
                )
            raise WeightsNotFoundError(f"no {spec.files[0]} in {folders}. {_advice(spec)}")
        return WeightSource(weights, path or keras_cache() / spec.files[0], spec)
    if weights.startswith(HUB):
        path = cached_hub_file(weights)
        listed = (spec for spec in known_weights().values() if weights.partition("@")[0] in spec.files)
        return WeightSource(weights, path, next(listed, None) or spec_of_file(path))
    path = Path(weights).expanduser()
    for run, fold in ((path, None), (path.parent, path)):
        if (run / "run.json").is_file() and (fold is None or path.name.startswith("fold_")):
            return _find_in_run(weights, run, fold)
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
        # A file name without a folder is also searched where known files are.
        candidates = (folder / path for folder in search_folders() if path.name == str(path))
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise WeightsNotFoundError(_not_found(weights))
    # A file in a fold has the preprocessing of its run.
    run = path.resolve().parent.parent
    is_in_run = path.resolve().parent.name.startswith("fold_") and (run / "run.json").is_file()
    return WeightSource(weights, path, spec_of_file(path), _read_record(run) if is_in_run else None)


def _find_in_run(weights: str, run: Path, fold: Path | None) -> WeightSource:
    """The model of `fold`, or of the only finished fold."""
    record, folds = _read_record(run), list(finished_folds(run).values())
    if record.get("status") != "finished" and fold not in folds:
        raise WeightsError(
            f"run {run} is not finished (status: {record.get('status')}). Finish it with --resume, "
            "or pass one of its files."
        )
    listed = ", ".join(map(str, folds)) or "none"
    if fold is None and len(folds) != 1:
        raise WeightsError(f"run {run} has {len(folds)} finished folds. Pass one of: {listed}.")
    if fold is not None and fold not in folds:
        raise WeightsError(f"there is no finished fold {fold}. Pass one of: {listed}.")
    return WeightSource(weights, (fold or folds[0]) / "model.keras", record=record)


def _read_record(run: Path) -> dict:
    try:
        return read_run(run)
    except RunError as error:
        raise WeightsError(str(error)) from None


def _existing(spec: WeightsSpec) -> Path | None:
    if spec.files[0].startswith(HUB):
        return hub_file(spec.files[0]).cached() if importlib.util.find_spec("huggingface_hub") else None
    # RadImageNet's zip contains this folder.
    folders = [inner for folder in search_folders() for inner in (folder, folder / "RadImageNet_models")]
    paths = (folder / name for folder in folders + [keras_cache()] * spec.keras for name in spec.files)
    return next((path for path in paths if path.is_file()), None)


def _advice(spec: WeightsSpec) -> str:
    return (
        f"They are not bundled; their terms: {spec.terms} Get them from {spec.origin} "
        f"and pass --weights PATH, or set {SEARCH_VARIABLE} to their folder."
    )


def _not_found(weights: str) -> str:
    if weights == "random":
        return f"random weights are not stored in a file. Expected {WAYS}."
    path = Path(weights).expanduser()
    if sibling := _sibling(path):
        return f"no weights at {path}. Found {sibling} in the same folder; did you mean that?"
    for folder in search_folders() if path.name == weights else ():
        if sibling := _sibling(folder / path):
            return f"no weights at {path}. Found {folder / sibling}; did you mean that?"
    if not path.suffix and path.name == weights:
        unknown = UnknownNameError("weights", weights, ["random", "imagenet", *known_weights()])
        return f"{unknown} Expected {WAYS}."
    if "radimagenet" in weights.lower():
        spec = spec_of_file(path) or known_weights()["radimagenet-resnet50"]
        return f"no weights at {path}. {_advice(spec)}"
    return f"no weights at {path}.{suggest_path(path)} Expected {WAYS}."


def _sibling(path: Path) -> str | None:
    """The file in the same folder with the most similar name: - for _, other case, or a typing error."""
    return closest_file_name(path, wanted=lambda item: item.suffix in _SUFFIXES)
