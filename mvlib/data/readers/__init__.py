"""Where samples come from: folders, tars, shards, manifests, and the packages that keep data sets. Imports no torch."""

from .base import Reader, Sample, StreamReader
from .checks import check_labels, check_same_classes
from .factory import create_reader

__all__ = ["Reader", "Sample", "StreamReader", "check_labels", "check_same_classes", "create_reader"]
