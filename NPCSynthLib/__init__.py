"""NPCSynth: any-to-all MR sequence synthesis and segmentation for nasopharyngeal carcinoma.

The rooms, in the order that the data takes: ``vocabulary``, ``study``, ``model``, ``inference``,
``output``, ``qa``, ``scene``, ``phantom``, ``training``, ``evaluation``, ``cli``. Arrays are
k-j-i (slice, row, column) everywhere; physical space is LPS in mm except in ``scene``, which
speaks Slicer's RAS.
"""

__version__ = "0.1.0"
