"""Which patients of the public cohorts are kept out of training."""

#: (cohort, patient) for validation: never trained on, used for the stopping point, the calibration and the tables.
VALIDATION = (("open_ms_cross", "p19"), ("glioma", "gli00001"), ("open_ms_long", "p04a"))
