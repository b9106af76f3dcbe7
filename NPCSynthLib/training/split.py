"""Which patients of the public cohorts are kept out of training."""

#: (cohort, patient) for validation: never trained on, used for the stopping point, the calibration and the tables.
VALIDATION = (("open_ms_cross", "p19"), ("glioma", "gli00001"), ("open_ms_long", "p04a"))

#: What glioma/gli00001 is called in the editions of BraTS that it comes from.
_ELSEWHERE = ("BraTS2021_00001", "BraTS-GLI-00001-000")


def is_validation(cohort: str, patient: str) -> bool:
    """Whether the patient in the folder ``<cohort>/<patient>`` is one of them, under this or another set's name."""
    return (cohort, patient) in VALIDATION or patient in _ELSEWHERE
