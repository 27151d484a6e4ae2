"""Building blocks that more than one model family uses. Imports nothing else of mvlib.

What timm.layers has, too, has its name and arguments here.
"""

from .activations import *
from .attention import *
from .attention2d import *
from .attention_pool import *
from .attention_pool2d import *
from .batch_norm import *
from .blur_pool import *
from .branches import *
from .channel_attention import *
from .classifier import *
from .config import *
from .conv import *
from .coord_attention import *
from .drop import *
from .evo_norm import *
from .fast_norm import *
from .feature_attention import *
from .format import *
from .fx import *
from .grn import *
from .helpers import *
from .learned_pool import *
from .ml_decoder import *
from .mlp import *
from .norm import *
from .padding import *
from .patch_embed import *
from .pool import *
from .pos_embed import *
from .rel_pos import *
from .residual import *
from .rope import *
from .self_attention2d import *
from .space_to_depth import *
from .stage import *
from .std_conv import *
from .weight_init import *
from .window import *
