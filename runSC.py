"""Find cell types in scRNA-seq data.

python runSC.py                                    # a small real set that comes with scanpy
python runSC.py --dataset my_cells.h5ad            # labels are not needed
python runSC.py --dataset Zeisel --seeds 5 15 25   # datasets/scdata/Zeisel.h5ad
python runSC.py --dataset Zeisel --config paper    # the published settings
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

import config
import data
import figures
import pipeline
import results
from config import SCConfig
from utils import (
    Stopwatch,
    UserError,
    find_device,
    limited_threads,
    log,
    run_script,
    staged_folder,
)

RESULTS = Path(__file__).parent / "results" / "SC"


def main() -> None:
    flags = vars(config.build_parser(SCConfig, __doc__).parse_args())
    settings = config.load(SCConfig, flags.pop("config"), flags)
    find_device(settings.device)  # before anything takes time
    with limited_threads(settings.threads):
        run(settings)


def run(settings: SCConfig) -> None:
    """Read, analyse, write and draw; labels are in place before anything is drawn."""
    watch = Stopwatch()
    with watch("read"):
        source = data.find_h5ad(settings.dataset)
        adata = data.read(source)
    name = data.dataset_name(settings.dataset)
    log.info("%s: %d cells x %d genes.", name, *adata.shape)
    folder = RESULTS / name if settings.output == "auto" else Path(settings.output)
    if source is not None and source.resolve() in [(folder / file).resolve() for file in results.FILES]:
        raise UserError(f"The results would overwrite the input {source}; choose another folder with --output.")

    with staged_folder(folder, (*results.FILES, *figures.FILES)) as stage:
        unfinished = folder / "log.unfinished.jsonl"  # stays when a run ends early
        unfinished.unlink(missing_ok=True)

        def log_epoch(losses: dict[str, float]) -> None:
            with unfinished.open("a") as lines:
                print(json.dumps(losses), file=lines)

        result = pipeline.find_cell_types(adata, settings, watch=watch, on_epoch=log_epoch)
        if settings.figures:
            with watch("umap"):
                pipeline.add_umap(result.cells)
        with watch("write"):
            results.write(result, stage, source)
        unfinished.replace(stage / "log.jsonl")
    if settings.figures:
        with staged_folder(folder, figures.FILES) as stage, watch("draw"):
            figures.draw(result, stage)
    print(f"\n{results.summary(result)}\nResults: {folder}")


if __name__ == "__main__":
    matplotlib.use("Agg")  # files only, no window
    sys.exit(run_script(main))
