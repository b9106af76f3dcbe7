"""The parts of the NPCSynth module: its logic, and its panel in sections. NPCSynth.py puts them together.

``logic``           NPCSynthLogic, everything that the module does, for scripts too
``parameters``      NPCSynthParameterNode, the choices that are saved with the scene
``dependencies``    installs the Python packages that Slicer lacks, after asking
``marking``         keeps the views marked while they show a synthetic image or predicted contours
``runner``          one computation at a time in the background, followed from the main thread
``messages``        what the panel tells: a status line, and errors in plain words
``selectors``       choosing a node of the scene
``contour_comparison``   compares two segmentations of the scene, and keeps the table for panel and report
``study_table``, ``settings``, ``run_controls``, ``export``, ``contour_qa`` ...   one section of the panel each

A section is a plain class. It gets the logic and whatever else it works with (``runner``, ``messages``) in its
constructor, builds its own Qt widgets there, and has

``widget``                  a ctkCollapsibleButton (or, without a title, a QWidget) that the panel puts into its layout
``setParameterNode(node)``  show and change this NPCSynthParameterNode from now on; None while a scene is closed
``setRunning(running)``     a computation begins or has ended: switch off what must not be touched meanwhile
``refresh()``               show the scene and the parameter node as they are now. Called after anything in them may
                            have changed (results added, a volume deleted, a scene loaded, a choice made), so often:
                            cheap, and without changing either
``cleanup()``               the module is closed or reloaded: stop timers, remove observers; the widgets may be gone

Sections do not know each other. Widgets hold no state that matters: choices live in the parameter node, results in the
scene. A node that a section chooses is a node reference of the parameter node, so that it is saved, and emptied by MRML
when the node goes. Long work goes through ``runner.start(compute, finish)``; whatever reads files, compares or computes
is in NPCSynthLib and knows no Qt. Errors go to ``messages.showError(error)``. Texts go through ``_()`` with
``.format(...)`` outside it. Adding a section is one line in ``NPCSynthWidget.setup``.
"""

import sys
from pathlib import Path

# Installed, the library lies beside NPCSynth.py; in a source checkout it lies one folder up, which is not on the path.
for _home in Path(__file__).resolve().parents[1:3]:
    if (_home / "NPCSynthLib").is_dir():
        if str(_home) not in sys.path:
            sys.path.insert(0, str(_home))  # first: this module's own library, not another version of it elsewhere
        break
