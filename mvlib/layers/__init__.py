"""Building blocks that more than one model family uses. Imports nothing else of mvlib.

What timm.layers has, too, has its name and arguments here.
"""

from .activations import *
from .attention import *
from .attention2d import *
from .attention_pool import *
from .attention_pool2d import *
from .blur_pool import *
from .branches import *
from .channel_attention import *
from .conv import *
from .drop import *
from .feature_attention import *
from .grn import *
from .helpers import *
from .mlp import *
from .norm import *
from .patch_embed import *
from .pool import *
from .pos_embed import *
from .rel_pos import *
from .rope import *
from .self_attention2d import *
from .stage import *
from .std_conv import *
from .weight_init import *
from .window import *
