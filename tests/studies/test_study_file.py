import pytest

from radtransfer.config.load import load_config, shipped_configs
from radtransfer.errors import ConfigError
from radtransfer.studies.file import is_study, load_study, study_text
from radtransfer.studies.grid import check_study
from radtransfer.studies.study import paired_runs, reference_run, source_cells, study_cells

STUDIES = {name for name in shipped_configs() if is_study(name)}

SMALL = """
study: {name: small, reference: scratch}
base:
  data: {source: images.csv}
  training.epochs: 3
sources:
  natural: {data.source: photographs}
arms:
  scratch: {}
  transfer: {model: {weights: imagenet}}
  depth:
    model.weights: source:natural
    transfer.scheme: transfusion
    training.epochs: 1
    grid: {transfer.through: [stem, stage1]}
grid:
  model.backbone: [resnet50, cbr_tiny]
  seed: [0, 1]
exclude:
  - {arm: transfer, model.backbone: cbr_tiny}
compare:
  cca: [[depth@initial, depth], [scratch, depth]]
"""


@pytest.fixture
def study_file(tmp_path):
    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_every_arm_is_run_with_every_combination_less_what_is_excluded(study_file):
    cells = study_cells(load_study(study_file(SMALL)))
    assert len(cells) == 4 + 2 + 8
    names = [cell.name for cell in cells]
    assert names[:2] == ["scratch, backbone resnet50, seed 0", "scratch, backbone resnet50, seed 1"]
    assert not any("transfer, backbone cbr_tiny" in name for name in names)
    deep = cells[-1]
    assert (deep.config.transfer.through, deep.config.model.backbone, deep.config.seed) == ("stage1", "cbr_tiny", 1)
    assert deep.config.training.epochs == 1  # the arm wins over the base
    assert cells[0].labels == {"model.backbone": "resnet50", "seed": 0, "transfer.through": None}


def test_a_source_has_the_network_of_what_starts_from_it_and_nothing_else_of_the_study(study_file):
    sources = source_cells(study_cells(load_study(study_file(SMALL))))
    assert [source.config.model.backbone for source in sources] == ["resnet50", "cbr_tiny"]
    source = sources[0].config
    assert (source.data.source, source.splits.folds, source.training.epochs, source.seed) == ("photographs", 1, 50, 0)


def test_a_setting_of_an_arm_takes_the_place_of_the_grid(study_file):
    text = SMALL.replace("scratch: {}", "scratch: {seed: 5}")
    seeds = [cell.config.seed for cell in study_cells(load_study(study_file(text))) if cell.arm == "scratch"]
    assert seeds == [5, 5]


def test_runs_belong_together_that_agree_in_what_both_vary(study_file):
    cells = study_cells(load_study(study_file(SMALL)))
    keyed = [(cell, str(number)) for number, cell in enumerate(cells)]
    assert paired_runs(keyed, "depth@initial", "depth")[0] == ("6", "6")
    deep = [(cell, key) for cell, key in keyed if cell.arm == "depth" and cell.config.transfer.through == "stage1"]
    for cell, key in deep:
        reference = cells[int(reference_run(keyed, cell, "scratch"))]
        assert reference.arm == "scratch"
        assert (reference.config.seed, reference.config.model.backbone) == (
            cell.config.seed,
            cell.config.model.backbone,
        )
        assert (reference_run(keyed, cell, "scratch"), key) in paired_runs(keyed, "scratch", "depth")
    assert reference_run(keyed, cells[0], None) is None


def test_the_command_line_changes_every_part(study_file):
    sets = (
        "training.epochs=9",
        "grid.seed=[4]",
        "arms.transfer.model.weights=w.h5",
        "arms.depth.grid.transfer.through=[stage2]",
        "sources.natural.data.source=other",
        "study.threshold=0.7",
    )
    study = load_study(study_file(SMALL), sets=sets, options={"data.image_root": "images"})
    assert study.threshold == 0.7
    cells = study_cells(study)
    assert {cell.config.seed for cell in cells} == {4}
    assert {cell.config.data.image_root for cell in cells} == {"images"}
    by_arm = {cell.arm: cell for cell in cells}
    assert by_arm["scratch"].config.training.epochs == 9
    assert by_arm["transfer"].config.model.weights == "w.h5"
    assert by_arm["depth"].config.transfer.through == "stage2"
    assert by_arm["depth"].source.config.data.source == "other"


def test_a_mistake_on_the_command_line_is_told_as_such(study_file):
    sets = ("positive_from=2", "arms.depht.seed=1", "arms.depth.grid.seed=1", "grid.seed=[x]")
    with pytest.raises(ConfigError) as caught:
        load_study(study_file(SMALL), sets=sets)
    for part in (
        "unknown key 'positive_from' (--set positive_from). Did you mean 'data.positive_from'?",
        "--set arms.depht.seed: Did you mean 'depth'?",
        "--set arms.depth.grid.seed: seed needs a list",
        "seed (--set grid.seed): expected a whole number",
    ):
        assert part in str(caught.value), part


def test_some_arms_are_a_study_of_their_own(study_file):
    study = load_study(study_file(SMALL), arms=("depth",))
    assert (list(study.arms), study.reference, study.exclude) == (["depth"], None, ())
    assert study.compare["cca"] == (("depth@initial", "depth"),)
    with pytest.raises(ConfigError, match=r"No arm 'dept' .* Did you mean 'depth'"):
        load_study(study_file(SMALL), arms=("dept",))


def test_all_mistakes_are_told_together_with_their_lines(study_file):
    text = """study: {name: my study, treshold: 0.9}
base:
  training:
    epochs: many
  seed: 1
  out: here
arms:
  scratch: {model.wieghts: random}
  transfer: {model.weights: source:nowhere}
grid:
  seed: 3
  model.image_size: [8, 64]
exclude:
  - arm: scrach
    seed: 0
compare:
  cca: [[scratch, transfr]]
basis: {}
"""
    with pytest.raises(ConfigError) as caught:
        load_study(study_file(text))
    message = str(caught.value)
    for part in (
        "my.yaml line 1: unknown key 'treshold'. Did you mean 'threshold'?",
        "expected a name of letters, digits and _.+-. Received: 'my study'",
        "training.epochs (my.yaml line 4): expected a whole number",
        "my.yaml line 6: the study names its run folders itself",
        "unknown key 'model.wieghts' (my.yaml line 8). Did you mean 'model.weights'",
        "my.yaml line 9: no source 'nowhere'",
        "my.yaml line 11: seed needs a list of values, such as [0, 1]. Received: 3",
        "model.image_size (my.yaml line 12): expected a value from 16 to 4096",
        "my.yaml line 14: no arm 'scrach'. Did you mean 'scratch'?",
        "my.yaml line 17: no arm 'transfr'. Did you mean 'transfer'?",
        "my.yaml line 18: unknown section 'basis'. Did you mean 'base'?",
    ):
        assert part in message, part
    assert message.startswith("11 mistakes in the study:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SMALL[SMALL.index("arms:") :], "arms: {}\n", "a study needs arms"),
        ("seed: [0, 1]", "training.epochs: [0]", "from 1"),
        ("seed: [0, 1]", "training.epochs: [1, 2]", "training.epochs is in base and in grid"),
        ("cbr_tiny}\n", "cbr_tiny, seed: 7}\n", "matches no run"),
        ("transfer.through: [stem, stage1]", "seed: [1]", "depth, backbone resnet50, seed 1: Scheme transfusion needs"),
        ("resnet50, cbr_tiny]", "resnet50, cbr_tny]", "Unknown backbone 'cbr_tny'"),
        ("  scratch: {}", "  a b: {}\n  scratch: {}", "Received: 'a b'"),
        ("natural: {data.source: photographs}", "natural: {same: [seeds]}", "unknown setting 'seeds'"),
        ("[scratch, depth]]", "[scratch, depth@end]]", "expected ARM or, for cca, ARM@initial"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(study_file, old, new, message):
    assert old in SMALL
    with pytest.raises(ConfigError) as caught:
        check_study(load_study(study_file(SMALL.replace(old, new, 1))))
    assert message in str(caught.value)


def test_the_resolved_text_is_the_same_study(study_file):
    study = load_study(study_file(SMALL))
    assert load_study(study_file(study_text(study))) == study


def test_runs_and_studies_are_not_taken_for_each_other():
    with pytest.raises(ConfigError, match="Use: radtransfer study quick-advice"):
        load_config("quick-advice")
    with pytest.raises(ConfigError, match="Use: radtransfer finetune quickstart"):
        load_study("quickstart")


def test_the_promised_studies_are_shipped():
    assert {
        "transfusion-table1",
        "transfusion-table2",
        "transfusion-small-data",
        "transfusion-convergence",
        "transfusion-freeze",
        "optimisation-dynamics",
        "revisiting",
        "radimagenet-24",
        "quick-advice",
        "busi-advice",
    } == STUDIES


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_shipped_study_is_valid_and_says_what_it_is_for(name):
    study = load_study(name)
    assert study.name == name
    assert check_study(study)
    head = [line for line in shipped_configs()[name].read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for word in ("Follows:", "Command: radtransfer study", "Needs:", "Expect:"):
        assert word in "\n".join(head)
    assert load_study_from_text(study) == study


def load_study_from_text(study):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.yaml"
        path.write_text(study_text(study), encoding="utf-8")
        return load_study(str(path))


def test_radimagenet_24_is_its_authors_grid():
    cells = check_study(load_study("radimagenet-24"))
    found = {(cell.arm, cell.config.model.backbone, cell.config.training.learning_rate) for cell in cells}
    rates = {"unfreezeall": (1e-3, 1e-4), "freezeall": (1e-2, 1e-3), "unfreezetop10": (1e-2, 1e-3)}
    networks = ("inception_resnet_v2", "resnet50", "densenet121", "inception_v3")
    assert found == {(arm, network, rate) for arm in rates for network in networks for rate in rates[arm]}
    assert len(cells) == 24


def test_the_runs_that_others_start_from_are_counted():
    cells = check_study(load_study("quick-advice"))
    assert [cell.is_source for cell in cells] == [True] * 2 + [False] * 12
