"""Find cell types in scRNA-seq data.

    python runSC.py                                    # a small real set that comes with scanpy
    python runSC.py --dataset my_cells.h5ad            # labels are not needed
    python runSC.py --dataset Zeisel --seeds 5 15 25   # datasets/scdata/Zeisel.h5ad
    python runSC.py --dataset Zeisel --config paper    # the published settings
"""

from __future__ import annotations

import json
from pathlib import Path

import config
import data
import pipeline
from config import SCConfig
from utils import Stopwatch, find_device, log, peak_memory_gib, run_script, staged_folder

RESULTS = Path(__file__).parent / "results" / "SC"


def main() -> None:
    flags = vars(config.build_parser(SCConfig, "Find cell types in scRNA-seq data with scRCL.", __doc__).parse_args())
    settings = config.load(SCConfig, flags.pop("config"), flags)
    folder = RESULTS / data.dataset_name(settings.dataset) if settings.output == "auto" else Path(settings.output)
    watch = Stopwatch()

    with watch("read"):
        source = data.find_h5ad(settings.dataset)
        adata = data.read(source)
    log.info("%s: %d cells x %d genes.", data.dataset_name(settings.dataset), *adata.shape)
    device = find_device(settings.device)

    # Drawing comes after writing, so import what draws after the arguments were understood.
    import figures
    import results

    with staged_folder(folder, results.TABLES) as stage:
        with (stage / "log.jsonl").open("w") as lines:
            result = pipeline.find_cell_types(adata, settings, on_epoch=lambda record: print(json.dumps(record), file=lines, flush=True), watch=watch)
        if settings.figures:
            with watch("umap"):
                pipeline.add_umap(result.cells)
        with watch("write"):
            results.write(result, stage, source)
    with staged_folder(folder, figures.FIGURES) as stage:
        if settings.figures:
            with watch("draw"):
                figures.draw(result, stage)

    print(f"\n{results.summary(result, peak_memory_gib(device))}\nResults: {folder}")


if __name__ == "__main__":
    run_script(main)
