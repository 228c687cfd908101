"""The results of an evaluation and of explanations as lines of text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from radtransfer.evaluation.calibration import edge_note
from radtransfer.evaluation.heat_maps import coarse_map_note, depend_on_weights
from radtransfer.evaluation.metrics import shown_metrics
from radtransfer.files import decimal, interval

if TYPE_CHECKING:
    from radtransfer.evaluation.explanations import Explained
    from radtransfer.evaluation.results import Evaluation

_AGREES = 0.2  # with a lower median rank correlation, the two kinds of maps disagree
_LISTED = 10  # images on the terminal


def evaluation_lines(evaluation: "Evaluation") -> Iterator[str]:
    """Model, data, a table of its networks, and the results of all of them, line by line."""
    found, model = evaluation.figures, evaluation.model
    kind = {"keras": " (Keras file)", "savedmodel": " (SavedModel)"}.get(model.kind)
    folds = f", fold{'s' * (len(model.folds) > 1)} {', '.join(map(str, model.folds))}"
    yield f"model     {model.given}{kind or folds}"
    patients = "patients not known" if found["n_patients"] is None else f"{found['n_patients']} patients"
    source = found["data"] or "the run's own test images"
    counts = ", ".join(f"{name} {item['n_positive']}" for name, item in found["per_class"].items())
    seen, in_training = found.get("seen"), ""
    if seen is not None and seen["images"]:  # repeated here, in case only the table is saved
        those = "all" if seen["images"] == seen["of"] else seen["images"]
        in_training = f"; {those} of them in the run's training or validation"
    yield f"data      {source}: {found['n_images']} images, {patients} ({counts}){in_training}"
    grade = found["positive_from"]
    if grade is not None:
        yield f"AUC       for grade ≥ {grade}"
    if found["positive_class"] is not None:
        yield f"positive class {found['positive_class']}: sensitivity, specificity, Brier and calibration are for it"
    yield ""
    yield from _table(found)
    yield ""
    classes = list(found["per_class"].items())
    if found["task"] == "multiclass" and len(classes) == 2:
        classes.sort(key=lambda item: item[0] == found["positive_class"])
        if model.activation == "softmax":  # both have one AUC
            classes = classes[1:]
    for name, item in classes:
        reason = found["undefined"].get(name)
        yield f"{name:<24}AUC {decimal(item['auc'])}  {interval(item['ci95'])}{f'  ({reason})' if reason else ''}"
    yield ""
    yield from _calibration_lines(found)
    yield from _point_lines(found)
    yield from _confusion_lines(found["confusion"])


def _table(found: dict[str, Any]) -> Iterator[str]:
    widths = {metric: max(8, len(metric.heading) + 2) for metric in shown_metrics(found)}
    headings = "".join(f"{metric.heading:>{width}}" for metric, width in widths.items())
    yield f"{'':<14}{'AUC':>6}  {'95 % interval':<16}{headings}{'ECE':>8}"
    for name, item in [*found["members"].items(), (found["judged"], found)]:
        numbers = "".join(f"{decimal(item[metric.name]):>{width}}" for metric, width in widths.items())
        yield (
            f"{name:<14}{decimal(item['auc']):>6}  {interval(item['ci95']):<16}{numbers}"
            f"{decimal(item['calibration']['ece']):>8}"
        )


def _calibration_lines(found: dict[str, Any]) -> Iterator[str]:
    item = found["calibration"]
    yield f"calibration    ECE {decimal(item['ece'])} in {item['bins']} bins of equal width"
    if "ece_after" in item:
        temperatures = ", ".join(f"{value:.2f}" for value in found["temperatures"])
        count = found["validation_images"]
        images = "validation images" if count is None else f"{count} validation images"
        yield (
            f"               temperature {temperatures}, fitted on {images}: ECE {decimal(item['ece'])} to "
            f"{decimal(item['ece_after'])}, Brier {decimal(item['brier_before'])} to {decimal(item['brier_after'])}"
        )
        note = edge_note(found["temperatures"])
        if note:
            yield f"               {note}"


def _point_lines(found: dict[str, Any]) -> Iterator[str]:
    point = found.get("operating_point")
    if point is None:
        return
    yield f"operating point {point['rule']}, chosen on {point['chosen_on_images']} validation images"
    for name, item in point["questions"].items():
        there, ci95 = item["validation"], item["ci95"]
        named = f"positive class {name}" if name == found["positive_class"] else name
        yield (
            f"  {named}: threshold {item['threshold']:.4g}, accuracy {decimal(item['accuracy'])}, "
            f"sensitivity {decimal(item['sensitivity'])} "
            f"({interval(ci95['sensitivity'])}), specificity {decimal(item['specificity'])} "
            f"({interval(ci95['specificity'])}); on validation {decimal(there['sensitivity'])} and "
            f"{decimal(there['specificity'])}"
        )


def _confusion_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"confusion matrix {found['decided']}"
    if "labels" in found:
        yield f"{'label':<24}{'tn':>7}{'fp':>7}{'fn':>7}{'tp':>7}"
        for name, ((tn, fp), (fn, tp)) in found["labels"].items():
            yield f"{name:<24}{tn:>7}{fp:>7}{fn:>7}{tp:>7}"
        return
    names = found["classes"]
    width = max(8, *(len(name) + 2 for name in names))
    yield f"{'true, predicted':<20}" + "".join(f"{name:>{width}}" for name in names)
    for name, row in zip(names, found["counts"], strict=True):
        yield f"{name:<20}" + "".join(f"{count:>{width}}" for count in row)


def explained_lines(explained: "Explained") -> Iterator[str]:
    """Layer, images, checks of the maps, and the first images, line by line."""
    network = explained.network
    stage = f" ({network.stage})" if network.stage else ""
    yield f"layer     {network.layer}{stage}, a map of {network.grid[0]}×{network.grid[1]}"
    coarse = coarse_map_note(network)
    if coarse:
        yield f"note      {coarse}"
    wrong = "" if explained.mistakes is None else f", {explained.mistakes} mistakes"
    yield f"images    {explained.images} {explained.what}{wrong}; {len(explained.explanations)} explained"
    if explained.explanations[0].occlusion is not None:
        count = sum(item.agreement is not None for item in explained.explanations)
        agreement = decimal(explained.agreement, ".2f")
        yield f"occlusion rank correlation with Grad-CAM {agreement}, median of {count} images"
        if explained.agreement is not None and explained.agreement < _AGREES:
            yield f"{'':<10}the two maps disagree: do not rely on either"
    steps = ", ".join(f"{step.what} {decimal(step.correlation, '.2f')}" for step in explained.randomized)
    yield f"sanity    rank correlation with the maps of random weights: {steps}"
    depends = depend_on_weights(explained.randomized, images=len(explained.explanations))
    verdict = {True: "depend", False: "hardly depend", None: "are too few to test whether they depend"}[depends]
    yield f"{'':<10}the maps {verdict} on the weights"
    for item in explained.explanations[:_LISTED]:
        state = {True: "wrong", False: "right", None: ""}[item.verdict.wrong]
        yield f"{state:<10}{item.verdict.name} {item.verdict.probability:.3f}  {item.path}"
    if len(explained.explanations) > _LISTED:
        where = f" in {explained.files[2]}" if explained.files else ""
        yield f"{'':<10}… and {len(explained.explanations) - _LISTED} more{where}"
