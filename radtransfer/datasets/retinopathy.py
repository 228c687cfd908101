"""The five grades of diabetic retinopathy: none, mild, moderate, severe, proliferative (ICDR, 0 to 4)."""

from radtransfer.datasets.labels import plain
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

GRADES = ("0", "1", "2", "3", "4")

REFERABLE = 2
"""The lowest grade that is referred to an ophthalmologist: moderate (Raghu et al. 2019, where grades count from 1)."""


def check_grade(text: str, image: str) -> str:
    """The grade that a cell holds.

    Raises:
        DataError: It holds something else.
    """
    grade = plain(text)
    if grade not in GRADES:
        raise DataError(f"The grade of {image} is {text!r}; expected 0, 1, 2, 3 or 4. Correct the table.")
    return grade


def referable_note(settings: DataSettings) -> list[str]:
    """That the AUC is of referable images, where the user has not said of what."""
    if settings.positive_from is not None:
        return []
    return [f"AUC of grade {REFERABLE} or worse (referable), the custom of this set; --positive-from changes it"]
