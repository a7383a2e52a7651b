"""Lets a torchvision whose compiled part does not fit the installed torch be imported for its Python part.

timm and open_clip import torchvision for its transforms, which are Python, but a wheel built for another torch fails
at import on operators it cannot declare. Declaring them empty is enough; calling one still fails. For tests only.
"""

import importlib
import importlib.util
import sys

_LIBRARIES = []
"""Kept for as long as the process lives: the operators go when their library does."""


def mend_torchvision() -> bool:
    """Make `import torchvision` work where only its missing operators prevent it; say whether that was needed."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    else:
        return False
    from torch import library as operators

    library = operators.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return True
