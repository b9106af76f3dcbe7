"""Layouts for looking at a result: two or three slice views side by side."""

#: Number of views side by side -> number of the layout. Slicer's own are below 100.
LAYOUTS = {2: 7302, 3: 7303}
#: The views of these layouts, from left to right; what they show changes, so that their labels are neutral.
PANES = {"NPCSynthA": ("A", "#3C8BD1"), "NPCSynthB": ("B", "#D18A3C"), "NPCSynthC": ("C", "#8AB53C")}
#: They follow each other and leave Slicer's own views alone.
_VIEW_GROUP = 73


def add_layouts(scene) -> None:
    """Make the layouts known. Best before a scene is loaded that was saved while one of them was shown."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is None:
        return
    for count, number in LAYOUTS.items():
        items = "".join(
            f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
            '<property name="orientation" action="default">Axial</property>'
            f'<property name="viewlabel" action="default">{label}</property>'
            f'<property name="viewcolor" action="default">{color}</property>'
            f'<property name="viewgroup" action="default">{_VIEW_GROUP}</property></view></item>'
            for name, (label, color) in list(PANES.items())[:count]
        )
        if not layout.IsLayoutDescription(number):
            layout.AddLayoutDescription(number, f'<layout type="horizontal" split="true">{items}</layout>')


def leave_layouts(scene) -> None:
    """Slicer's four views, where one of these layouts is shown."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is not None and layout.GetViewArrangement() in LAYOUTS.values():
        layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
