"""Where samples come from: folders, tars, shards, manifests, and the packages that keep data sets. Imports no torch."""

from .base import Reader, Sample, StreamReader
from .checks import Relabel, check_labels, check_same_classes, match_classes
from .factory import create_reader
from .img_extensions import (
    add_img_extensions,
    del_img_extensions,
    get_img_extensions,
    is_img_extension,
    set_img_extensions,
)

__all__ = [
    "Reader", "Relabel", "Sample", "StreamReader", "add_img_extensions", "check_labels", "check_same_classes",
    "create_reader", "del_img_extensions", "get_img_extensions", "is_img_extension", "match_classes",
    "set_img_extensions",
]
