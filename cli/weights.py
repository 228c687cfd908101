"""Commands that list what there is and look into it: weights, backbones and configs."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.main import Group, complete_backbone, complete_config, complete_weights
from radtransfer.cli.options import (
    TABLE_OPTIONS,
    Command,
    Whole,
    given_settings,
    output_options,
    sets_option,
    setting_options,
    typed_words,
)
from radtransfer.cli.terminal import TerminalProgress, import_tensorflow, show, show_file, show_json, show_next
from radtransfer.config.load import config_text, find_config, load_config, shipped_configs
from radtransfer.config.yaml_text import parse_yaml
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.pretrained.any_network import APPLICATIONS
from radtransfer.studies.file import is_study, load_study
from radtransfer.training.names import check_value

if TYPE_CHECKING:
    from radtransfer.models.backbone import StageSummary
    from radtransfer.pretrained.input_check import FileCheck
    from radtransfer.pretrained.input_scale import ModeEvidence

OPTIONS = {
    "data": "data.source",
    **TABLE_OPTIONS,
    "image_size": "model.image_size",
    "aspect": "images.aspect",
    "fundus_crop": "images.fundus_crop",
    "window": "images.window",
    "seed": "seed",
}

MODES_SHOWN = 4
"""Columns of the table of layers."""


@click.command(
    cls=Command,
    first=("data", "image_root", "path_column", "image_size", "backbone", "images", "layers", "as_json"),
    short_help="Find the preprocessing that a file's weights expect.",
)
@click.argument("file")
@setting_options(**OPTIONS)
@click.option("--backbone", metavar="NAME", help="Network in FILE; recognized if left out.")
@click.option(
    "--images",
    type=Whole(8, 1000),
    default=48,
    show_default=True,
    help="Images to look at, at most.",
)
@click.option(
    "--layers",
    type=Whole(1, 1000),
    default=12,
    show_default=True,
    help="Batch-norm layers to compare, the first ones.",
)
@click.option("--ignore-lambda", is_flag=True, help="Also read weights from a file with Lambda layers.")
@output_options
def check(
    file: str, backbone: str | None, images: int, layers: int, ignore_lambda: bool, as_json: bool, **given: Any
) -> None:
    """Compare the batch-norm statistics stored in FILE with those of your images under each preprocessing mode.

    No labels are needed. For each mode, the first layer gives the brightness and contrast that the training images
    must have had; a mode fits if these values are possible for images and those of the other modes are not.

    \b
    Example:
      radtransfer weights check RadImageNet-ResNet50_notop.h5 --data images/
    """
    settings = load_config(options=given_settings(given, OPTIONS), check=check_value)
    from radtransfer.pretrained.input_check import check_weights

    progress = TerminalProgress()
    found = check_weights(
        file,
        settings,
        backbone=backbone,
        images=images,
        layers=layers,
        ignore_lambda=ignore_lambda,
        progress=progress,
    )
    progress.clear()
    if not as_json:
        show(*_lines(found, settings.data.source))
        words = ["finetune", "--backbone", found.backbone, "--weights", file, *typed_words(*OPTIONS)]
        if found.check.verdict.certainty == "fits":
            show_next([*words, "--preprocessing", found.check.verdict.modes[0]])
        else:
            show_next(["weights", "inspect", file])
        return
    content = dataclasses.asdict(found)
    for mode in content["check"]["modes"]:
        mode["training"]["colour"] = list(map(float, mode["training"]["colour"]))
        del mode["training"]["colour_error"]
    show_json(content)


def _lines(found: "FileCheck", data: str) -> Iterator[str]:
    checked = found.check
    yield f"file      {found.file}"
    yield f"backbone  {found.backbone}, the first {checked.layers} of {checked.all_layers} batch-norm layers"
    yield (
        f"images    {checked.images} of {data}, {found.image_size} px, {'grey' if checked.grey else 'colour'}, "
        f"brightness {checked.brightness:.2f}, contrast {checked.contrast:.2f}"
    )
    if checked.modes:
        yield ""
        yield f"{'mode':<18}{'probability':<22}{'its training images would have':<56}fits best at"
        yield from map(_mode_line, checked.modes)
        yield ""
        yield from _layer_lines(checked.modes[:MODES_SHOWN])
        yield ""
    verdict = checked.verdict
    if verdict.certainty == "fits":
        same = f" (on these grey images the same as {', '.join(verdict.modes[1:])})" if verdict.modes[1:] else ""
        probability = checked.modes[0].probability
        text = f"{verdict.modes[0]} fits{same}, probability {probability:.3f} among the modes known here."
    elif verdict.certainty == "none":
        text = "none of the modes fits."
    else:
        among = f": {' or '.join(verdict.modes)}" if verdict.modes else ""
        text = f"cannot tell{among}."
    yield f"verdict   {text}"
    yield f"          {checked.verdict.reason}"
    if checked.verdict.certainty == "fits" and found.used not in checked.verdict.modes:
        how = {"card": "from the manifest", "run": "from the run", "assumed": "assumed"}[found.used_sure]
        mode = checked.verdict.modes[0]
        yield f"          radtransfer would use {found.used} ({how}); --preprocessing {mode} overrides it."


def _mode_line(mode: "ModeEvidence") -> str:
    images = mode.training
    colours = ", ".join(f"{letter} {value:.2f}" for letter, value in zip("RGB", images.colour, strict=True))
    text = f"brightness {images.brightness:.2f} ({colours}), contrast {images.contrast:.2f}"
    if not mode.possible:
        text = f"impossible: brightness {images.brightness:.3g}, contrast {images.contrast:.2g}"
    probability = f"{mode.probability:.3f} ({mode.low:.3f}–{mode.high:.3f})"
    return f"{', '.join((mode.mode, *mode.same_as)):<18}{probability:<22}{text:<56}{mode.best_at} of {len(mode.layers)}"


def _layer_lines(modes) -> Iterator[str]:
    """Of each layer and mode, how far the mean is off and how much wider the spread is than remembered."""
    width = max(len(layer.layer) for layer in modes[0].layers) + 2
    yield f"{'layer':<{width}}" + "".join(f"{mode.mode:>20}" for mode in modes)
    yield f"{'':<{width}}" + f"{'mean off, spread':>20}" * len(modes)
    for place, first in enumerate(modes[0].layers):
        fits = [mode.layers[place] for mode in modes]
        yield f"{first.layer:<{width}}" + "".join(f"{f'{fit.shift:.2f} sd, ×{fit.spread:.2f}':>20}" for fit in fits)


@click.command(short_help="Convert PyTorch weights or a SavedModel to a Keras file.")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT.weights.h5")
@click.option("--backbone", metavar="NAME", help="Network in IN; recognized if left out.")
@click.option("--ignore-lambda", is_flag=True, help="Also read weights from a file with Lambda layers.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@output_options
def convert(source: str, out: str, backbone: str | None, ignore_lambda: bool, overwrite: bool, as_json: bool) -> None:
    """Write the weights in IN as a Keras file for --weights.

    IN is a PyTorch state dict of ResNet50, DenseNet121 or InceptionV3 as torchvision builds them (.pt, .pth,
    .safetensors; RadImageNet's too), a SavedModel folder, or any Keras file. Nothing in it is unpickled or run.

    \b
    Example:
      radtransfer weights convert ResNet50.pt radimagenet-resnet50.weights.h5
    """
    from radtransfer.pretrained.convert import convert_weights
    from radtransfer.pretrained.source import HUB, cached_hub_file

    if source.startswith(HUB):
        source = str(cached_hub_file(source))
    done = convert_weights(Path(source), Path(out), backbone=backbone, overwrite=overwrite, ignore_lambda=ignore_lambda)
    if as_json:
        show_json(done)
        return
    show(f"backbone  {done['backbone']}: {done['layers']} layers, {done['parameters']:,} parameters, read back equal")
    for note in done["notes"]:
        show(f"note      {note}")
    if done["left_out"]:
        more = ", …" if len(done["left_out"]) > 6 else ""
        show(f"left out  {', '.join(done['left_out'][:6])}{more}")
    show(f"input     not stored in such files: `radtransfer weights check {done['out']} --data …` finds it")
    show(f"wrote     {done['out']}  sha256 {done['sha256']}")
    show_next(["weights", "check", done["out"], "--data", "IMAGES"])


@click.command(short_help="Read a whole file and compare its hash.")
@click.argument("file")
@click.option("--ignore-lambda", is_flag=True, help="Also read weights from a file with Lambda layers.")
@output_options
def verify(file: str, ignore_lambda: bool, as_json: bool) -> None:
    """Read all of FILE and compare its hash with the published ones.

    The exit code is 4 if it is damaged or a different file.

    \b
    Example:
      radtransfer weights verify RadImageNet-ResNet50_notop.h5
    """
    from radtransfer.pretrained.convert import verify_file
    from radtransfer.pretrained.source import find_weights, known_weights

    found = verify_file(find_weights(file).file, ignore_lambda=ignore_lambda)
    if as_json:
        show_json(found)
        return
    show(f"file      {found['file']}, {found['size'] / 1e6:,.1f} MB")
    show(f"sha256    {found['sha256']}")
    show(f"read      {found['arrays']} arrays, {found['parameters']:,} numbers, all finite")
    if found["verdict"] == "published":
        show(f"verdict   {found['card']}: the published file, by its hash")
        show(f"terms     {known_weights()[found['card']].terms}")
        show_next(["weights", "inspect", file])
        return
    named = (
        f"has the name of {found['card']}, whose publisher gives no hash" if found["card"] else "its hash is unknown"
    )
    show(f"verdict   unknown: {named}; note the sha256 to compare copies")
    show_next(["weights", "inspect", file])


@click.command(short_help="Download a weight file from the Hugging Face hub.")
@click.argument("file", metavar="hf:REPO/FILE[@REVISION]")
@click.option("--download", is_flag=True, help="Download the file; otherwise only show its size.")
@output_options
def fetch(file: str, download: bool, as_json: bool) -> None:
    """Show the size of a file on the Hugging Face hub, and download it with --download.

    Afterwards --weights takes its hf: name.

    \b
    Example:
      radtransfer weights fetch hf:Lab-Rasool/RadImageNet/ResNet50.pt --download
    """
    from radtransfer.pretrained.source import hub_file

    wanted = hub_file(file)
    path, size = wanted.cached(), None
    if path is None:
        size = wanted.size()
        shown = "size not known" if size is None else f"{size / 1e6:,.1f} MB"
        if not as_json:
            show(f"file      {wanted.name} of {wanted.repo}, {shown}")
        path = wanted.download() if download else None
    if as_json:
        facts = {"repo": wanted.repo, "name": wanted.name, "bytes": size}
        show_json(facts | {"path": None if path is None else str(path)})
    elif path is not None:
        show(f"here      {path}")
    show_next(["weights", "inspect", file] if path is not None else ["weights", "fetch", file, "--download"])


@click.group(cls=Group, short_help="List, inspect, check and convert weight files.")
def weights() -> None:
    """List, inspect, convert and verify weight files, and find their preprocessing.

    \b
    Example:
      radtransfer weights list
    """


for command in (check, convert, verify, fetch):
    weights.add_command(command)


@weights.command("list", short_help="List the weights known by name.")
@output_options
def list_weights(as_json: bool) -> None:
    """List the weights that --weights knows by name, and which of them are on this machine.

    \b
    Example:
      radtransfer weights list --json
    """
    from radtransfer.pretrained.source import found_files, known_weights

    found = found_files()
    specs = known_weights().values()
    if as_json:
        rows = [
            dataclasses.asdict(spec) | {"found": str(found[spec.name]) if spec.name in found else None}
            for spec in specs
        ]
        show_json(rows)
        return
    show(f"{'name':<32}{'preprocessing':<15}{'top-1':>6}  here")
    for spec in specs:
        top1 = "" if spec.top1 is None else f"{100 * spec.top1:.1f} %"
        here = found.get(spec.name) or ("Keras downloads it" if spec.keras else "no")
        show(f"{spec.name:<32}{spec.preprocessing:<15}{top1:>6}  {here}")
    for family, terms in {spec.family: spec.terms for spec in specs}.items():
        show("", f"{family}: {terms}")
    show_next(["weights", "inspect", *found][:3] if found else ["weights", "where"])


@weights.command(short_help="Show what a weight file holds.")
@click.argument("file", shell_complete=complete_weights)
@click.option("--ignore-lambda", is_flag=True, help="Also read weights from a file with Lambda layers.")
@output_options
def inspect(file: str, ignore_lambda: bool, as_json: bool) -> None:
    """Show what FILE holds: a path, a name from `weights list`, or RUN[/fold_K].

    \b
    Example:
      radtransfer weights inspect RadImageNet-ResNet50_notop.h5
    """
    from radtransfer.pretrained.read import read_weight_file
    from radtransfer.pretrained.source import find_weights

    source = find_weights(file)
    # A bad file is refused before TensorFlow is imported.
    content = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    import_tensorflow()
    from radtransfer.pretrained.convert import inspect_weights

    found = inspect_weights(source, content)
    if as_json:
        show_json(found)
        return
    for title, line in _inspection_lines(found):
        show(f"{title:<15}{line}")
    show_next(["weights", "check", file, "--data", "IMAGES"])


@weights.command()
@output_options
def where(as_json: bool) -> None:
    """Show the folders that are searched and the known weights in them.

    \b
    Example:
      RADTRANSFER_WEIGHTS=~/weights radtransfer weights where
    """
    from radtransfer.pretrained.source import SEARCH_VARIABLE, found_files, keras_cache, search_folders

    folders, found = [folder.resolve() for folder in search_folders()], found_files()
    if as_json:
        files = {name: str(path) for name, path in found.items()}
        show_json({"searched": list(map(str, folders)), "keras": str(keras_cache()), "found": files})
        return
    for folder in folders:
        show(f"searched  {folder}")
    show(f"Keras     {keras_cache()}")
    for name, path in found.items():
        show(f"found     {name:<32}{path}")
    if not found:
        show(f"found     none of the known files; {SEARCH_VARIABLE} names the folder that holds yours")
    show_next(["weights", "list"])


def _inspection_lines(found):
    """The title and text of each line about an `Inspection`."""
    writer = f", written by Keras {found['keras_version']}" if found["keras_version"] else ""
    yield "file", found["file"]
    yield "format", f"{found['format']}{writer}"
    yield "holds", f"{found['layers']} layers with weights, {found['parameters']:,} parameters"
    bad = found["not_finite"]
    counts = [f"{item['variable']} ({item['nan']} NaN, {item['infinite']} infinite)" for item in bad]
    nan, infinite = (sum(item[kind] for item in bad) for kind in ("nan", "infinite"))
    shown = ", ".join(counts[:6]) + (", …" if len(counts) > 6 else "")
    yield "values", f"{nan:,} NaN and {infinite:,} infinite in {len(bad)} variables: {shown}" if bad else "all finite"
    yield "sha256", found["sha256"]
    if found["lambdas"]:
        yield "lambda", f"{', '.join(found['lambdas'])}: ignored; their effect on the images is unknown"
    if found["backbone"] is None:
        yield "backbone", "none of those in `radtransfer backbones`"
        return
    channels = "" if found["channels"] == 3 else f", for images of {found['channels']} channels"
    layers = f"all {found['backbone_layers']} layers found by {found['matched_by']}"
    yield "backbone", f"{found['backbone']}: {layers}{channels}"
    shown = ", ".join(found["extra"][:6]) + (", …" if len(found["extra"]) > 6 else "")
    yield "head", f"{len(found['extra'])} more layers: {shown}" if found["extra"] else "none"
    sure = found["preprocessing_certainty"] or ("certain" if found["preprocessing_sure"] == "run" else "assumed")
    yield "preprocessing", f"{found['preprocessing']} ({sure}). {found['reason']}"
    if found["card"]:
        yield "card", found["card"]
        yield "terms", found["terms"]


IMAGE_SIZE = 224
"""Pixels; the output sizes are shown for images of this size."""


_OTHERS = (
    f"and  keras:NAME       {len(APPLICATIONS)} classifiers of keras.applications, such as keras:MobileNetV3Small",
    "     MODULE:FUNCTION  your own: FUNCTION(image_size=N) returns a functional Keras model",
    "     FILE.keras       your own, saved by Keras",
)


@click.command()
@click.argument("name", required=False, shell_complete=complete_backbone)
@output_options
def backbones(name: str | None, as_json: bool) -> None:
    """List the networks, or show the stages of NAME.

    \b
    Example:
      radtransfer backbones resnet50
    """
    if name is None:
        specs = [BACKBONES[known] for known in BACKBONES]
        show_json([_spec_json(spec) for spec in specs]) if as_json else show(*_table_text(specs), "", *_OTHERS)
        show_next(["backbones", "resnet50"])
        return
    spec = BACKBONES[name]
    import_tensorflow()
    from radtransfer.models.architecture import build_architecture
    from radtransfer.models.backbone import stage_summaries

    size = spec.image_size or IMAGE_SIZE
    stages = stage_summaries(build_architecture(spec, image_size=size), spec)
    if as_json:
        stages = [dataclasses.asdict(stage) for stage in stages]
        show_json(_spec_json(spec) | {"image_size": size, "stages": stages})
        return
    show(*_network_text(spec, stages))
    show_next(["plan", spec.name, *(["--weights", "imagenet"] if spec.pretrained else [])])


def _spec_json(spec: Backbone) -> dict[str, Any]:
    names = ("name", "description", "parameters", "paper_parameters", "preprocessing", "pretrained")
    return {
        **{name: getattr(spec, name) for name in names},
        "slim": spec.build_slim is not None,
        "minimum_size": spec.minimum_size,
        "batch_norm_momentum": spec.batch_norm_momentum,
        "stages": list(spec.stages),
    }


def _table_text(specs: list[Backbone]) -> list[str]:
    rows = [f"{'name':<20}{'parameters':>11}  stages  preprocessing  description"]
    for spec in specs:
        numbers = f"{spec.parameters:>11,}  {len(spec.stages):>6}"
        rows.append(f"{spec.name:<20}{numbers}  {spec.preprocessing:<13}  {spec.description}")
    return rows


def _network_text(spec: Backbone, stages: tuple["StageSummary", ...]) -> list[str]:
    rows = [spec.description, f"parameters     {spec.parameters:,} without a head"]
    if spec.paper_parameters is not None:
        rule = "kernels after the first + 5 × last width"
        rows.append(f"{'':<15}{spec.paper_parameters:,} as the paper counts them: {rule}")
    widths = "each stage at any fraction of its width" if spec.build_slim else "full width only"
    sizes = f"{spec.minimum_size} pixels or more; output sizes below for {IMAGE_SIZE}"
    if spec.image_size is not None:
        sizes = f"{spec.image_size} pixels only"
    elif spec.patch is not None:
        sizes = f"a multiple of {spec.patch} pixels; output sizes below for {IMAGE_SIZE}"
    rows += [
        f"preprocessing  {spec.preprocessing}",
        f"slim           {widths}",
        f"image size     {sizes}",
        "",
    ]
    width = max(len(stage.end) for stage in stages)
    rows += [f"stage    layers  {'last layer':<{width}}  {'output':<14}  parameters"]
    rows += [
        f"{stage.name:<8} {len(stage.layers):>6}  {stage.end:<{width}}  "
        f"{'×'.join(map(str, stage.output_shape)):<14}  {stage.parameters:>10,}"
        for stage in stages
    ]
    return rows


@click.group(cls=Group)
def configs() -> None:
    """List, show or check the settings of runs and studies.

    \b
    Example:
      radtransfer configs list
      radtransfer configs show quickstart > mine.yaml
      radtransfer configs validate mine.yaml
    """


@configs.command("list")
@output_options
def list_configs(as_json: bool) -> None:
    """List the shipped configs and studies, with their purpose.

    \b
    Example:
      radtransfer configs list --json
    """
    rows = []
    for name, path in shipped_configs().items():
        purpose = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": name, "kind": "study" if is_study(name) else "run", "purpose": purpose})
    if as_json:
        show_json(rows)
        return
    for row in rows:
        show(f"{row['name']:<25}{row['kind']:<7}{row['purpose']}")
    show_next(["configs", "show", "quickstart"])


@configs.command("show")
@click.argument("config", shell_complete=complete_config)
@click.option("--full", is_flag=True, help="Show every setting of a run, also those of its recipe.")
@output_options
def show_config(config: str, full: bool, as_json: bool) -> None:
    """Print CONFIG, a shipped name or a YAML file.

    \b
    Example:
      radtransfer configs show quickstart --full
    """
    text = config_text(load_config(config)) if full else find_config(config).read_text(encoding="utf-8")
    show_json(parse_yaml(text, source=config)[0]) if as_json else show_file(text)
    show_next(["study" if is_study(config) else "finetune", config, "--dry-run"])


@configs.command(short_help="Check the settings of a run or a study.")
@click.argument("config", shell_complete=complete_config)
@sets_option("Change a setting, as finetune or study does.")
@output_options
def validate(config: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Check the settings in CONFIG, of a run or a study, without running anything; all mistakes are listed.

    The exit code is 2 if there are mistakes. Data and weights may still be missing: `finetune --dry-run`
    reads them too.

    \b
    Example:
      radtransfer configs validate mine.yaml
      radtransfer configs validate quick-advice --set grid.seed=[0,1,2]
    """
    study = is_study(config)
    if study:
        from radtransfer.studies.grid import check_study

        runs = len(check_study(load_study(config, sets=sets)))
    else:
        from radtransfer.training.names import resolve_names

        resolve_names(load_config(config, sets=sets, check=check_value))
    if as_json:
        show_json({"config": config, "kind": "study", "runs": runs} if study else {"config": config, "kind": "run"})
    else:
        show(f"{config}: a valid study of {runs} runs." if study else f"{config}: every setting is valid.")
    show_next(["study" if study else "finetune", config, *typed_words(), "--dry-run"])
