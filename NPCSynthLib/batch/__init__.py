"""Several patients, one after the other: what one run does for each, kept track of on disk, and summed up."""

from .cohort import Cohort, Patient, Settings, patient_folders
from .run import run_cohort

__all__ = ["Cohort", "Patient", "Settings", "patient_folders", "run_cohort"]
