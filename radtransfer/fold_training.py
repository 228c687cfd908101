"""One fold from its first weights to those of its best epoch."""

from pathlib import Path

from radtransfer.experiment import Experiment
from radtransfer.initialization import start
from radtransfer.learner import Learner
from radtransfer.progress import EpochReporter, Progress
from radtransfer.recipes import head_phase
from radtransfer.runs import Run, whole_file
from radtransfer.settings import TrainingSettings
from radtransfer.splits.folds import Fold
from radtransfer.training import FitState, fit, memory_errors


def train_fold(experiment: Experiment, fold: Fold, run: Run | None, folder: Path, progress: Progress) -> FitState:
    """Train `fold`; the network then has the weights of its best epoch.

    Args:
        experiment: Of the run.
        fold: Which.
        run: Where the weights at the start go; None for a worker that writes nothing.
        folder: Of the fold.
        progress: Hears what happens.

    Raises:
        TrainingError: The loss is no longer a number, or memory ran out.
        RunError: A checkpoint is damaged, or of another network.
    """
    settings, seed = experiment.config.training, experiment.fold_seed(fold)
    with memory_errors(settings):
        start(experiment.classifier.model, experiment.plan, experiment.starting_weights, seed=seed)
        if run is not None:
            with whole_file(folder / "initial.weights.h5") as part:
                experiment.classifier.model.save_weights(part)
        if experiment.head_learner is not None:
            progress.note(f"fold {fold.number}: the head trains alone first")
            head_folder = folder / "head_phase" if run is None else run.head_phase(fold.number)
            _fit(experiment, experiment.head_learner, head_phase(settings), fold, head_folder, progress)
            progress.note(f"fold {fold.number}: now everything trains")
        return _fit(experiment, experiment.learner, settings, fold, folder, progress)


def _fit(
    experiment: Experiment,
    learner: Learner,
    settings: TrainingSettings,
    fold: Fold,
    folder: Path,
    progress: Progress,
) -> FitState:
    """Train what `learner` trains, from the weights as they stand."""
    learner.reset(experiment.class_weights(fold))
    return fit(
        learner,
        experiment.fold_data(fold, experiment.inputs(learner, progress)),
        settings,
        seed=experiment.fold_seed(fold),
        folder=folder,
        settled_after=experiment.settled_after,
        reporter=EpochReporter(progress, fold.number, experiment.fold_count, settings.epochs),
    )
