"""Find spatial domains in tissue.

python runST.py --demo                             # a small simulated tissue
python runST.py --dataset 151673                   # datasets/stdata/DLPFC/151673, a Visium folder
python runST.py path/to/outs                       # any Visium or Visium HD folder; annotation is not needed
python runST.py my_spots.h5ad                      # obsm['spatial'], or x and y in obs
python runST.py --dataset 151673 --config paper    # the published settings
"""

import sys

from utils import script

if __name__ == "__main__":
    sys.exit(script("tissue", __file__))
