"""Where samples come from: folders, tars, shards, manifests, and the packages that keep data sets. Imports no torch."""

from .base import Reader, Sample, StreamReader
from .checks import Relabel, check_labels, check_same_classes, match_classes
from .factory import create_reader

__all__ = [
    "Reader", "Relabel", "Sample", "StreamReader", "check_labels", "check_same_classes", "create_reader",
    "match_classes",
]
