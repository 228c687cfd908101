"""A data set checked as a whole."""

from radtransfer.config.load import load_config
from radtransfer.data.check import check_data
from radtransfer.process import Progress


def kinds_of(report):
    return {(finding.severity, finding.kind) for finding in report.findings}


def test_busi_has_one_image_with_two_labels_and_many_that_look_alike(busi):
    report = check_data(load_config(options={"data.source": str(busi / "images")}))
    (contradiction,) = [finding for finding in report.findings if finding.kind == "contradictory_labels"]
    assert contradiction.files == ("benign/benign (433).png", "malignant/malignant (145).png")
    alike = [finding for finding in report.findings if finding.kind == "near_duplicate"]
    assert 50 < len(alike) < 100
    assert not report.valid


def test_synthetic_fundus_photographs_are_sound_though_they_resemble_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path))
    source = "synthetic_fundus:images=120,size=48,seed=3"
    report = check_data(load_config(options={"data.source": source, "model.image_size": 48}))
    assert report.valid
    assert {kind for severity, kind in kinds_of(report) if severity == "warning"} <= {"few_patients"}


def test_all_images_are_counted(tmp_path, monkeypatch):
    class Counting(Progress):
        counts = []

        def count(self, what, done, total):
            self.counts.append((what, done, total))

    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path))
    options = {"data.source": "synthetic_fundus:images=60,size=48,seed=3"}
    check_data(load_config(options=options), progress=Counting())
    assert Counting.counts[-1] == ("images checked", 60, 60)


def test_the_worst_findings_come_first(tmp_path):
    (tmp_path / "images.csv").write_text("path,label\na.png,x\nb.png,y\nb.png,x\nc.png,y\n")
    report = check_data(load_config(options={"data.source": str(tmp_path / "images.csv")}))
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert {("error", "contradictory_labels"), ("error", "missing"), ("error", "few_patients")} <= kinds_of(report)
    assert report.images == 2 and report.sizes == {} and report.modes == {}
