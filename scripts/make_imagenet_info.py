#!/usr/bin/env python3
"""Write mvlib/data/info: ImageNet's classes by subset, WordNet's words for them, and the labels of "ReaL", from the
files that an installed timm has of them."""

import csv
import importlib.util
import lzma
from pathlib import Path

SUBSETS = {"imagenet-1k": "imagenet", "imagenet-12k": "imagenet12k", "imagenet-22k": "imagenet22k",
           "imagenet-21k-goog": "imagenet21k_goog", "imagenet-21k-miil": "imagenet21k_miil",
           "imagenet-22k-ms": "imagenet22k_ms"}


def main() -> None:
    source = Path(importlib.util.find_spec("timm").submodule_search_locations[0], "data", "_info")
    target = Path(__file__).parents[1] / "mvlib" / "data" / "info"

    def table(name: str) -> dict[str, str]:
        return dict(csv.reader((source / name).read_text(encoding="utf-8").splitlines(), delimiter="\t"))

    def write(name: str, text: str) -> None:
        (target / name).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))

    words, meanings = table("imagenet_synset_to_lemma.txt"), table("imagenet_synset_to_definition.txt")
    write("wordnet.tsv.xz", "".join(f"{synset}\t{words[synset]}\t{meanings[synset]}\n" for synset in sorted(words)))
    write("imagenet_subsets.txt.xz", "".join(
        f"{subset} {' '.join((source / f'{name}_synsets.txt').read_text().split())}\n"
        for subset, name in SUBSETS.items()))
    write("imagenet_real_labels.json.xz", (source / "imagenet_real_labels.json").read_text())


if __name__ == "__main__":
    main()
