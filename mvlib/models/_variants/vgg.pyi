# Written by scripts/build_stubs.py.
# ruff: noqa
from .. import VGG11_BN_Weights as VGG11_BN_Weights
from .. import VGG11_Weights as VGG11_Weights
from .. import VGG13_BN_Weights as VGG13_BN_Weights
from .. import VGG13_Weights as VGG13_Weights
from .. import VGG16_BN_Weights as VGG16_BN_Weights
from .. import VGG16_Weights as VGG16_Weights
from .. import VGG19_BN_Weights as VGG19_BN_Weights
from .. import VGG19_Weights as VGG19_Weights
from .. import vgg11 as vgg11
from .. import vgg11_bn as vgg11_bn
from .. import vgg13 as vgg13
from .. import vgg13_bn as vgg13_bn
from .. import vgg16 as vgg16
from .. import vgg16_bn as vgg16_bn
from .. import vgg19 as vgg19
from .. import vgg19_bn as vgg19_bn
