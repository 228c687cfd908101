"""What `radtransfer evaluate` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radtransfer.predictions.evaluate import Evaluation


def evaluation_lines(evaluation: "Evaluation") -> Iterator[str]:
    """Model, data, a table of its networks, and what the whole is worth, line by line."""
    found, model = evaluation.figures, evaluation.model
    yield f"model     {_model_text(evaluation)}"
    patients = "patients not known" if found["n_patients"] is None else f"{found['n_patients']} patients"
    source = found["data"] or "the run's own test images"
    counts = ", ".join(f"{name} {item['n_positive']}" for name, item in found["per_class"].items())
    yield f"data      {source}: {found['n_images']} images, {patients} ({counts}){_in_training(found.get('seen'))}"
    grade = found["positive_from"]
    if grade is not None:
        yield f"AUC       of grade {grade} or worse"
    if found["positive_class"] is not None:
        yield f"positive class {found['positive_class']}: sensitivity, specificity, Brier and calibration are of it"
    yield ""
    yield from _table(found)
    yield ""
    for name, item in _told_classes(found, model.activation):
        reason = found["undefined"].get(name)
        yield f"{name:<24}AUC {_number(item['auc'])}  {_interval(item['ci95'])}{f'  ({reason})' if reason else ''}"
    yield ""
    yield from _calibration_lines(found, model.activation)
    yield from _point_lines(found)
    yield from _confusion_lines(found["confusion"])


def _told_classes(found: dict[str, Any], activation: str) -> list[tuple[str, dict[str, Any]]]:
    """Every class or label; of two classes that share a softmax the positive, since both have one AUC."""
    classes = list(found["per_class"].items())
    if found["task"] != "multiclass" or len(classes) != 2:
        return classes
    in_order = sorted(classes, key=lambda item: item[0] == found["positive_class"])
    return in_order[1:] if activation == "softmax" else in_order


def _in_training(seen: dict[str, Any] | None) -> str:
    """So that the table says so where only the table is kept."""
    if seen is None or not seen["images"]:
        return ""
    return f"; {'all' if seen['images'] == seen['of'] else seen['images']} of them in the run's training or validation"


def _model_text(evaluation: "Evaluation") -> str:
    model = evaluation.model
    if model.kind != "run":
        return f"{model.given} ({'Keras file' if model.kind == 'keras' else 'SavedModel'})"
    folds = ", ".join(map(str, model.folds))
    return f"{model.given}, fold{'s' * (len(model.folds) > 1)} {folds}"


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield f"{'':<14}{'AUC':>6}  {'95 % interval':<16}{'accuracy':>9}{'sens@90%spec':>14}{'Brier':>8}{'ECE':>8}"
    for name, item in [*found["members"].items(), (found["judged"], found)]:
        numbers = f"{_number(item['accuracy']):>9}{_number(item['sensitivity_at_90_specificity']):>14}"
        numbers += f"{_number(item['brier']):>8}{_number(item['calibration']['ece']):>8}"
        yield f"{name:<14}{_number(item['auc']):>6}  {_interval(item['ci95']):<16}{numbers}"


def _calibration_lines(found: dict[str, Any], activation: str) -> Iterator[str]:
    from radtransfer.metrics.calibration import edge_note

    item = found["calibration"]
    yield f"calibration    ECE {_number(item['ece'])} in {item['bins']} bins of equal width"
    if "ece_after" in item:
        temperatures = ", ".join(f"{value:.2f}" for value in found["temperatures"])
        number = found["validation_images"]
        images = "validation images" if number is None else f"{number} validation images"
        yield (
            f"               temperature {temperatures}, fitted on {images}: ECE {_number(item['ece'])} to "
            f"{_number(item['ece_after'])}, Brier {_number(item['brier_before'])} to {_number(item['brier_after'])}"
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
            f"  {named}: threshold {item['threshold']:.4g}, accuracy {_number(item['accuracy'])}, "
            f"sensitivity {_number(item['sensitivity'])} "
            f"({_interval(ci95['sensitivity'])}), specificity {_number(item['specificity'])} "
            f"({_interval(ci95['specificity'])}); on validation {_number(there['sensitivity'])} and "
            f"{_number(there['specificity'])}"
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


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None) -> str:
    return "n/a" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
