"""What the application gives a scene so that it can read bundles (.mrb)."""

import slicer


def let_read_bundles(scene, folder):
    """Bundles are unpacked below this folder, which is there."""
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(str(folder))
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(manager)
