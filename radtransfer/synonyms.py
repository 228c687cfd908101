"""What commands, options and settings are called in other programs: a table of names, and who is meant by one."""

from collections.abc import Iterable, Mapping

COMMANDS = {
    "finetune": "train training fit fine-tune fine-tuning tune learn run start resume",
    "study": "grid sweep experiment experiments benchmark",
    "lr-find": "lr lr-finder find-lr learning-rate",
    "evaluate": "test testing eval val validate score metrics",
    "predict": "infer inference classify apply prediction predictions",
    "extract": "features embed embeddings encode activations",
    "export": "save convert deploy onnx tflite savedmodel",
    "card": "model-card",
    "explain": "gradcam grad-cam cam saliency heatmap heatmaps interpret",
    "compare-cca": "cca svcca cka similarity compare",
    "report": "html summary summarize plot plots figures results",
    "backbones": "models model networks architectures archs",
    "plan": "schemes scheme",
    "doctor": "info env environment version versions",
    "configs": "config settings recipes",
    # Of the groups; from outside they are named with their group.
    "data check": "check dataset stats",
    "check": "validate stats describe verify scan lint",
    "data split": "split folds",
    "split": "folds kfold",
    "data prepare": "prepare preprocess",
    "prepare": "preprocess convert",
    "data preview": "preview",
    "preview": "show view plot",
    "weights inspect": "inspect",
    "inspect": "info show describe",
    "weights fetch": "fetch download",
    "fetch": "download get pull",
    "verify": "hash sha256 checksum",
    "validate": "check lint test",
    "show": "print cat view",
    "list": "ls",
}
"""Command to its other names, those of a group with the group before them."""

OPTIONS = {
    "backbone": "model arch architecture network net encoder model-name base-model",
    "learning-rate": "lr base-lr init-lr initial-lr",
    "epochs": "epoch num-epochs n-epochs max-epochs",
    "batch-size": "bs batch batchsize",
    "out": "output output-dir output-path output-file out-dir outdir out-file save save-dir save-path save-to dest "
    "destination logdir log-dir workdir work-dir run-dir run-name exp-name experiment-name results results-dir",
    "data": "dataset datasets data-dir datadir data-path data-root dataset-path train-data train-dir input inputs csv "
    "images image root",
    "images": "data dataset input inputs image files",
    "image-root": "image-dir images-dir img-dir image-folder",
    "weights": "pretrained pretrained-weights weights-path init checkpoint ckpt load load-weights",
    "run": "model checkpoint ckpt weights model-path",
    "model": "run checkpoint ckpt weights model-path",
    "file": "weights checkpoint path input",
    "config": "cfg settings yaml file",
    "resume": "continue resume-from restart",
    "overwrite": "force replace clobber",
    "image-size": "img-size imgsz input-size input-shape resolution size",
    "optimizer": "opt optim optimiser",
    "schedule": "scheduler lr-schedule lr-scheduler",
    "augmentation": "aug augment augmentations transform transforms data-augmentation",
    "precision": "amp fp16 bf16 half mixed-precision dtype",
    "workers": "num-workers n-workers threads",
    "jobs": "n-jobs num-jobs parallel processes workers num-workers",
    "gpus-per-run": "gpu gpus device devices cuda num-gpus",
    "distribute": "strategy ddp num-gpus gpus multi-gpu",
    "seed": "random-seed random-state manual-seed",
    "folds": "kfold k-fold kfolds k-folds n-folds num-folds n-splits cv",
    "val-fraction": "val-split validation-split validation-fraction val-size val-ratio",
    "label-column": "label labels target targets label-col class-column",
    "patient-column": "patient patients patient-id group groups group-column",
    "path-column": "path-col image-column image-col file-column filename-column",
    "patience": "early-stopping early-stop",
    "freeze-to": "freeze freeze-until freeze-layers freeze-up-to frozen frozen-stages",
    "bn-init": "bn batch-norm",
    "scheme": "method strategy",
    "class-weights": "class-weight balanced",
    "monitor": "metric",
    "ema": "ema-decay",
    "track": "logger tracker wandb mlflow tensorboard",
    "format": "fmt type",
    "operating-point": "threshold cutoff",
    "similarity": "measure metric method",
    "layer": "layers stage",
    "layers": "layer stage stages",
    "dry-run": "dryrun",
    "stages": "through freeze-to stage layers",
    "from": "lr learning-rate min-lr start-lr",
    "to": "lr learning-rate max-lr end-lr",
    "name": "model backbone arch architecture network",
    # Settings that are called otherwise than their options.
    "source": "data dataset data-dir data-path train-dir path",
    "weight-decay": "wd l2 decay",
    "ema-momentum": "ema-decay",
}
"""Option, argument or last part of a setting to its other names."""

SECTIONS = {
    "data": "dataset datasets",
    "images": "image",
    "splits": "split",
    "model": "network net",
    "training": "train trainer fit optim optimization hyperparameters",
    "system": "hardware device",
}
"""Section of the settings to its other names."""

GPU = ("gpu", "gpus", "device", "devices", "cuda", "gpu-id", "gpu-ids")
"""What most commands have no option for."""


def meant_names(word: str, known: Iterable[str], table: Mapping[str, str]) -> list[str]:
    """Those of `known` that `word` stands for here or in other programs; case, and - or _, make no difference."""
    word, spelled = _plain(word), {_plain(name): name for name in known}
    if word in spelled:
        return [spelled[word]]
    return [spelled[name] for name, others in table.items() if name in spelled and word in others.split()]


def _plain(name: str) -> str:
    return name.strip().lower().lstrip("-").replace("_", "-")
