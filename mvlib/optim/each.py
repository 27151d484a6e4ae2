"""Arithmetic on lists of tensors: torch's list operations, which run one CUDA kernel for many tensors.

`each.add_(a, b, alpha=2)` adds to each tensor of `a` twice its partner in `b`; what follows a list may also be one
number, or a list of numbers. Names and arguments are those of the tensor methods.
"""

from torch import _foreach_add as add
from torch import _foreach_add_ as add_
from torch import _foreach_addcdiv as addcdiv
from torch import _foreach_addcdiv_ as addcdiv_
from torch import _foreach_addcmul_ as addcmul_
from torch import _foreach_clamp_max_ as clamp_max_
from torch import _foreach_clamp_min_ as clamp_min_
from torch import _foreach_copy_ as copy_
from torch import _foreach_div as div
from torch import _foreach_div_ as div_
from torch import _foreach_lerp as lerp
from torch import _foreach_lerp_ as lerp_
from torch import _foreach_maximum_ as maximum_
from torch import _foreach_mul as mul
from torch import _foreach_mul_ as mul_
from torch import _foreach_norm as norm
from torch import _foreach_pow as pow
from torch import _foreach_sign_ as sign_
from torch import _foreach_sqrt as sqrt
from torch import _foreach_sub as sub
from torch import _foreach_sub_ as sub_

__all__ = [
    "add", "add_", "addcdiv", "addcdiv_", "addcmul_", "clamp_max_", "clamp_min_", "copy_", "div", "div_", "lerp",
    "lerp_", "maximum_", "mul", "mul_", "norm", "pow", "sign_", "sqrt", "sub", "sub_",
]
