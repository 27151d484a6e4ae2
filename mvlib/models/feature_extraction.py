"""torchvision's feature extraction by tracing, for those who know it from there; it works on our models too.

`create_model(..., features_only=True)` needs no tracing and is the better choice where stages are wanted.
"""

from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

__all__ = ["create_feature_extractor", "get_graph_node_names"]
