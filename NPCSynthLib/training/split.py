"""Which patients of the public cohorts are kept out of training."""

#: (cohort, patient) for validation: never trained on, used for the stopping point, the calibration and the tables.
VALIDATION = (("open_ms_cross", "p19"), ("glioma", "gli00001"), ("open_ms_long", "p04a"))

#: What glioma/gli00001 is called in the editions of BraTS that it comes from.
_ELSEWHERE = ("brats2021_00001", "brats-gli-00001-000")


def is_validation(cohort: str, patient: str) -> bool:
    """Whether the patient in the folder ``<cohort>/<patient>`` is one of them, under this or another set's name.

    Names are all that is looked at: a copy under another name is not known.
    """
    return (cohort, patient) in VALIDATION or patient.lower() in _ELSEWHERE
