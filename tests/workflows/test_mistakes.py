"""A mistake in settings, paths, names or runs is told before anything is imported that takes seconds."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow",
    "keras",
    "sklearn",
    "scipy",
    "matplotlib",
    "tensorflow_datasets",
    "keras_cv",
    "pydicom",
    "pandas",
)

PROGRAM = f"""
import json, sys
from click.testing import CliRunner

class Forbidden:
    def find_spec(self, name, path, target=None):
        if name in {HEAVY}:
            raise RuntimeError(name + " was imported")

sys.meta_path.insert(0, Forbidden())
from radtransfer.cli.main import application
for words in json.load(sys.stdin):
    outcome = CliRunner().invoke(application, words, prog_name="radtransfer")
    print(json.dumps([outcome.exit_code, outcome.stderr]))
"""

TRAIN = "finetune --data good.csv --backbone cbr_tiny --image-size 24"
FOLD = "runs/done/fold_1"

MISTAKES = {
    # Nothing given, or too little.
    2: f"""
        finetune
        finetune --dry-run
        study
        lr-find
        freeze-sweep --data good.csv --out s
        freeze-sweep --data good.csv --out s --weights random
        evaluate
        export runs/done --out x
        plan --scheme transfer
        report --out r
        data check
        weights inspect
        configs show

        train
        finetune --lr 1
        weights download
        data check good.csv --bogus

        {TRAIN} --epochs many
        {TRAIN} --folds 0
        {TRAIN} --optimizer adamm
        {TRAIN} --image-size 3
        {TRAIN} --fold 9
        {TRAIN} --window a,b
        {TRAIN} --augmentation lihgt
        {TRAIN} --preprocessing cafe
        {TRAIN} --recipe nosuch
        {TRAIN} --backbone resnet51
        {TRAIN} --scheme nosuch
        {TRAIN} --scheme transfusion
        {TRAIN} --scheme slim --through stage1
        {TRAIN} --scheme transfer
        {TRAIN} --scheme transfusion --through stage9 --weights {FOLD}
        {TRAIN} --scheme transfusion --through conv9 --weights {FOLD}
        {TRAIN} --bn-init transfer
        {TRAIN} --slim stage9:0.5
        {TRAIN} --freeze-to stag1
        {TRAIN} --track nosuch
        {TRAIN} --cache-features
        {TRAIN} --cache-features --distribute mirrored
        {TRAIN} --worker-index 1
        {TRAIN} --distribute multiworker
        {TRAIN} --class-weights x
        {TRAIN} --set training.lr=1
        {TRAIN} --set training.loss=categorical_crossentropy --head sigmoid
        {TRAIN} --positive-class nosuch
        {TRAIN} --patient-column a --patient-regex b
        {TRAIN} --resume --overwrite
        {TRAIN} --out runs/done
        {TRAIN} --out runs/done --resume
        {TRAIN} --out folder
        {TRAIN} --out file
        {TRAIN} --out gs://bucket/run
        finetune nosuch
        finetune wrong.yaml
        finetune quick-advice
        finetune --data synthetic_fundus:60

        study nosuch
        study quickstart
        study quick-advice --arms nosuch
        study quick-advice --set grid.bogus=[1]
        study quick-advice --set base.model.backbone=resnet51
        study quick-advice --no-timing
        study quick-advice --gpus-per-run 1
        study busi-advice --dry-run
        lr-find --data good.csv --from 3 --to 1
        lr-find --data good.csv --out runs/done
        lr-find --data good.csv --scheme transfusion
        freeze-sweep --data good.csv --backbone cbr_tiny --out file --weights {FOLD}
        transfusion-sweep --data good.csv --backbone cbr_tiny --out s --weights {FOLD} --stages stage9

        data check good.csv --window x
        data check good.csv --out file
        data split good.csv --out good.csv
        data prepare good.csv --out file
        data prepare good.csv --out folder
        data preview good.csv --augmentation nosuch
        data preview good.csv --out x.txt

        plan resnet51
        plan resnet50 --scheme nosuch
        plan resnet50 --scheme hybrid --through stage1
        plan resnet50 --scheme transfusion --through stage77 --weights imagenet
        plan resnet50 --preprocessing cafe
        plan resnet50 --image-size 16
        backbones resnet51
        configs validate wrong.yaml

        weights check {FOLD} --data good.csv --backbone nosuch
        weights check {FOLD}
        weights convert model.keras out.h5
        weights convert model.keras out.weights.h5 --backbone nosuch

        evaluate runs/begun
        evaluate runs/done --fold 9
        evaluate runs/done --operating-point nosuch
        evaluate runs/done --positive-class nosuch
        evaluate runs/done --out file
        evaluate runs/done --label-column x
        evaluate model.keras
        evaluate model.keras --operating-point nosuch
        predict runs/begun images
        predict runs/done images --fold 9
        predict runs/done images --operating-point sensitivity=2
        predict model.keras images --operating-point nosuch
        predict runs/done images --out file
        extract runs/done images --layer stage1 --out f.npz
        extract {FOLD} images --layer stage9 --out f.npz
        extract {FOLD} images --layer stage1 --out f.txt
        export folder --format keras --out x
        export runs/done --format keras --out x
        export runs/done --fold 9 --format keras --out x
        export runs/begun --format keras --out x
        export runs/done --fold 1 --format keras --out x --operating-point nosuch
        export runs/done --fold 1 --format keras --out file/x
        export runs/done --fold 1 --format keras --out model.keras
        card runs/begun
        explain runs/done
        explain {FOLD} --layer stage9
        explain {FOLD} --class nosuch
        explain {FOLD} --out file
        explain model.keras

        compare-cca runs/done
        compare-cca runs/begun runs/done
        compare-cca runs/done@final random:resnet51
        compare-cca runs/done runs/done --similarity nosuch
        compare-cca runs/done runs/done --layers stage9
        compare-cca runs/done runs/done --fold 9
        compare-cca runs/done runs/done --out file
        compare-cca random:cbr_tiny random:cbr_tiny
        compare-cca --pairs runs/done
        compare-cca --pairs runs/done runs/begun
        compare-predictions runs/done folder
        compare-weights runs/begun runs/done
        compare-weights runs/done random:nosuch
        compare-weights runs/done runs/done --fold 9
        report runs/begun --out r
        report folder --out r
        report runs/done --out runs/done
    """,
    3: f"""
        finetune --data nosuch --backbone cbr_tiny
        finetune --data folder --backbone cbr_tiny
        finetune --data busi:nosuch --backbone cbr_tiny
        finetune --data empty.csv --backbone cbr_tiny
        {TRAIN} --label-column nosuch
        {TRAIN} --image-root nosuch
        study busi-advice --data nosuch --dry-run
        lr-find --data nosuch
        freeze-sweep --data nosuch --backbone cbr_tiny --out s --weights {FOLD}
        data check nosuch
        data split nosuch
        data prepare nosuch --out p
        data prepare good.csv --out p --label-column nosuch
        data preview nosuch
        weights check {FOLD} --data nosuch
        evaluate runs/done --data nosuch
        evaluate model.keras --data nosuch
        evaluate runs/done --data good.csv --label-column nosuch
        predict runs/done nosuch.png
        predict model.keras nosuch.png
        extract {FOLD} nosuch.png --layer stage1 --out f.npz
        explain {FOLD} nosuch.png
        explain {FOLD} --data nosuch
        compare-cca runs/done runs/done --data nosuch
        compare-cca runs/done runs/done --data good.csv --path-column nosuch
        compare-cca model.keras model.keras --data nosuch
    """,
    4: f"""
        {TRAIN} --weights nosuch.h5
        {TRAIN} --weights imagenet
        {TRAIN} --weights runs/begun
        {TRAIN} --weights folder
        {TRAIN} --weights file
        {TRAIN} --weights {FOLD} --backbone cbr_small
        {TRAIN} --weights nosuch.h5 --dry-run
        study quick-advice --set base.model.weights=nosuch.h5
        lr-find --data good.csv --weights nosuch.h5
        freeze-sweep --data good.csv --backbone cbr_tiny --out s --weights nosuch.h5
        plan resnet50 --weights nosuch.h5
        plan cbr_tiny --weights imagenet
        weights inspect nosuch.h5
        weights verify file
        weights check nosuch.h5 --data good.csv
        weights check {FOLD} --data good.csv --backbone resnet50
        weights convert nosuch.h5 out.weights.h5
        weights convert folder out.weights.h5
        evaluate nosuch
        evaluate folder
        evaluate file
        predict nosuch images
        extract nosuch images --layer stage1 --out f.npz
        explain nosuch
        compare-cca runs/done nosuch
        compare-cca nosuch model.keras
        compare-cca imagenet:cbr_tiny runs/done --data good.csv
        compare-weights nosuch model.keras
    """,
}
ROWS = [(line.strip(), code) for code, lines in MISTAKES.items() for line in lines.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, finished_run, tiny_images):
    """Command to exit code and message, all of one process that can import nothing heavy."""
    place = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(finished_run.path, place / "runs" / "done")
    shutil.copytree(
        finished_run.path, place / "runs" / "begun", ignore=shutil.ignore_patterns("fold_*", "metrics.json")
    )
    shutil.copy(finished_run.path / "fold_1" / "model.keras", place)
    shutil.copytree(tiny_images / "images", place / "images")
    table = (tiny_images / "images.csv").read_text().replace("sick/", "images/sick/").replace("well/", "images/well/")
    (place / "good.csv").write_text(table)
    for name, text in (("file", "x"), ("folder/file", "x"), ("empty.csv", ""), ("wrong.yaml", "modle:\n  seed: 1\n")):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    nowhere = {name: str(place / "none") for name in ("RADTRANSFER_WEIGHTS", "RADTRANSFER_CACHE", "KERAS_HOME")}
    commands = json.dumps([shlex.split(line) for line, _ in ROWS])
    arguments = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(
        arguments, input=commands, cwd=place, env=os.environ | nowhere, capture_output=True, text=True, check=True
    )
    found = map(json.loads, ran.stdout.splitlines())
    return {line: outcome for (line, _), outcome in zip(ROWS, found, strict=True)}


@pytest.mark.parametrize(("line", "code"), ROWS, ids=[line for line, _ in ROWS])
def test_a_mistake_is_told_before_anything_heavy_is_imported(outcomes, line, code):
    found, said = outcomes[line]
    assert found == code, said
    assert said.strip() and "Unexpected" not in said
