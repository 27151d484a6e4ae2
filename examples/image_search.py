"""Find the pictures that look most like one: nearest neighbours by cosine over what `mvlib embed` writes.

    python examples/image_search.py                                  # a piece of each photograph finds its photograph
    python examples/image_search.py QUERY.jpg --folder PICTURES --sheet found.png
    python examples/image_search.py QUERY.jpg --index photos.parquet # of `mvlib embed PICTURES --output photos.parquet`

The index is made when it is not there yet; the model is the one that made it, as its manifest says."""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from demo_data import photographs, run, write_pieces

from mvlib import BadImageError
from mvlib.cli import main as mvlib
from mvlib.inference import ContactSheet, Settings, embed, open_session


class Index:
    """Pictures and the direction of their features: `files`, n of them, and `vectors` (n, features) of length 1."""
    def __init__(self, path: Path, model: str | None = None) -> None:
        table = pq.read_table(path)
        self.files, vectors = table["file"].to_pylist(), np.stack(table["embedding"].to_numpy())
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (manifest := path.with_name(f"{path.name}.manifest.json")).exists():
            raise SystemExit(f"{manifest}, which says of which model {path} is, is missing: make both by mvlib embed")
        made = json.loads(manifest.read_text(encoding="utf-8"))["settings"]
        self.session = open_session(Settings(model=model or made["model"], count=1), made["features"], with_digest=True)
        if self.session.describe()["weights"] != made["weights"]:
            raise SystemExit(f"{path} was made with other weights of {made['model']}: name them with --model")

    def search(self, picture: Path, count: int) -> list[tuple[str, float]]:
        """The `count` nearest pictures, each with the cosine of its features and the picture's."""
        vector = embed(self.session)(self.session.read(picture)[None]).reshape(-1)
        similar = self.vectors @ vector / np.linalg.norm(vector)
        return [(self.files[row], float(similar[row])) for row in np.argsort(-similar)[:count]]


def main(argv: list[str] | None = None) -> dict[Path, list[tuple[str, float]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", nargs="*", help="pictures to look for: files")
    parser.add_argument("--folder", type=Path, help="pictures to search (default: scikit-image's photographs)")
    parser.add_argument("--index", type=Path, default=Path("output/examples/photos.parquet"))
    parser.add_argument("--count", type=int, default=3, help="pictures to find (default: 3)")
    parser.add_argument("--sheet", type=Path, help="draw what was found for the first query: a contact sheet (.png)")
    parser.add_argument("--model", help="that makes the index, or made it, where its manifest does not say where it is")
    args = parser.parse_args(argv)
    if gone := [name for name in args.query if not Path(name).is_file()]:
        parser.error(f"{gone[0]} is no file{': save the picture first' if '://' in gone[0] else ''}")
    if args.index.suffix != ".parquet" or args.count < 1:
        parser.error(f"an index is a .parquet file, and --count is at least 1; not {args.index} and {args.count}")
    if args.folder or not args.index.exists():
        args.index.parent.mkdir(parents=True, exist_ok=True)
        words = *([args.folder] if args.folder else photographs()), "--output", args.index
        words = "embed", *map(str, words), *(["--model", args.model] if args.model else [])
        if (status := mvlib(words)) > 1 or not args.index.exists():
            raise SystemExit(status)  # 1: some pictures could not be read
    index = Index(args.index, args.model)
    found = {}
    for query in [*map(Path, args.query)] or write_pieces(args.index.parent / "pieces"):
        try:
            found[query] = index.search(query, args.count)
            shown = "  ".join(f"{similar:.3f} {'/'.join(Path(file).parts[-2:])}" for file, similar in found[query])
        except BadImageError as error:  # the others are looked for all the same
            shown = f"not read: {error}"
        print(f"{query.name:24}", shown)
    if args.sheet and found:
        sheet, (query, nearest) = ContactSheet(args.sheet), next(iter(found.items()))
        for file, similar in [(query, 1.0), *nearest]:
            sheet.add(file, [(0, "like the query", similar)])
        print(*sheet.close())
    return found


if __name__ == "__main__":
    run(main)
