"""Find cell types in scRNA-seq data.

python runSC.py                                    # a small real set that comes with scanpy
python runSC.py --dataset my_cells.h5ad            # labels are not needed
python runSC.py --dataset Zeisel --seeds 5 15 25   # datasets/scdata/Zeisel.h5ad
python runSC.py --dataset Zeisel --config paper    # the published settings
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

import config
import data
import figures
import pipeline
import results
from config import SCConfig
from utils import Stopwatch, find_device, log, peak_memory_gib, run_script, staged_folder

RESULTS = Path(__file__).parent / "results" / "SC"


def main() -> None:
    flags = vars(config.build_parser(SCConfig, __doc__).parse_args())
    settings = config.load(SCConfig, flags.pop("config"), flags)
    device = find_device(settings.device)
    watch = Stopwatch()
    with watch("read"):
        source = data.find_h5ad(settings.dataset)
        adata = data.read(source)
    name = data.dataset_name(settings.dataset)
    log.info("%s: %d cells x %d genes.", name, *adata.shape)

    folder = RESULTS / name if settings.output == "auto" else Path(settings.output)
    with staged_folder(folder, results.FILES) as stage:
        with (stage / "log.jsonl").open("w") as lines:
            result = pipeline.find_cell_types(
                adata, settings, watch=watch, on_epoch=lambda losses: print(json.dumps(losses), file=lines, flush=True)
            )
        if settings.figures:
            with watch("umap"):
                pipeline.add_umap(result.cells)
        with watch("write"):
            results.write(result, stage, source)
    # Labels are in place before anything is drawn.
    with staged_folder(folder, figures.FILES) as stage:
        if settings.figures:
            with watch("draw"):
                figures.draw(result, stage)
    print(f"\n{results.summary(result, peak_memory_gib(device))}\nResults: {folder}")


if __name__ == "__main__":
    matplotlib.use("Agg")  # files only, no window
    run_script(main)
