"""torchvision.models, or mvlib's face of it where the script is run under `mvlib.timm`."""

import sys

if "mvlib" in sys.modules:
    import mvlib.models.detection as detection

    import mvlib.models as models
else:
    from torchvision import models
    from torchvision.models import detection

__all__ = ["detection", "models"]
