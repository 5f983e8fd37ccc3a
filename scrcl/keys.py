"""Every name under which something is read from, or written to, an AnnData."""

from __future__ import annotations

from dataclasses import dataclass

# Read and written: the field's usual names
COUNTS = "counts"  # layers: raw counts
LOG1P = "log1p"  # uns: scanpy's note on the base of logarithms
HIGHLY_VARIABLE = "highly_variable"  # var: whether a gene is highly variable
PCS = "X_pca"  # obsm: principal components of the scaled highly variable genes
HARMONY = "X_pca_harmony"  # obsm: these without what differs between batches, as scanpy names it
UMAP = "X_umap"  # obsm
SPATIAL = "spatial"  # obsm: positions; uns: images and scale factors, as squidpy keeps them
LIBRARY = "library_id"  # obs: squidpy's name for the section of a spot
IN_TISSUE = "in_tissue"  # obs: 1 for spots on the tissue, as Space Ranger tells them
SPOT_GRID = ("in_tissue", "array_row", "array_col")  # obs: as squidpy keeps Space Ranger's positions

# Written by a run beside those of `Keys`
SPATIAL_PCS = "X_pca_spatial"  # obsm: means of the PCs over the neighbours of a spot
SPATIAL_WEIGHT = "spatial_weight"  # var: how much of a gene neighbours share (prepare.tissue.spatial_weights)

# Read: usual names, in the order in which they are looked for
LABELS_OF_CELLS = ("cell_type1", "celltype", "cell_type")  # obs: known cell types
LABELS_OF_SPOTS = ("layer_guess", "ground_truth", "annotation")  # obs: known domains
COUNT_LAYERS = ("counts", "count", "raw_counts", "raw_count", "rawcounts", "raw", "umi", "umis")  # layers, any case
POSITIONS = ("spatial", "X_spatial", "spatial_fov")  # obsm
POSITION_COLUMNS = (  # obs, in the habits of Stereo-seq, Xenium, MERFISH, CosMx, stLearn and Visium
    ("x", "y"),
    ("X", "Y"),
    ("x_centroid", "y_centroid"),
    ("center_x", "center_y"),
    ("CenterX_global_px", "CenterY_global_px"),
    ("imagecol", "imagerow"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("array_col", "array_row"),
    ("col", "row"),
)
SECTION_COLUMNS = (  # obs, in lower case and letters alone
    *("libraryid", "library", "section", "sectionid", "slice", "sliceid", "slide", "slideid", "slidename"),
    *("sample", "sampleid", "samplename", "puck", "puckid", "chip", "bregma", "batch", "origident", "donor", "patient"),
)
GENE_SYMBOLS = (  # var, without case, separators and plural
    *("genesymbol", "symbol", "featurename", "genename", "externalgenename", "hgncsymbol", "mgisymbol"),
    *("geneshortname", "hugosymbol", "geneid", "gene", "feature", "name"),
)
FEATURE_TYPES = ("feature_types", "feature_type", "modality", "feature_biotype")  # var, by 10x, muon and cellxgene


@dataclass(frozen=True)
class Keys:
    """Where one run writes what it finds; `name` is scanpy's `key_added`."""

    name: str = "scrcl"

    @property
    def labels(self) -> str:
        """obs: the final labels."""
        return self.name

    @property
    def unsmoothed(self) -> str:
        """obs: the final labels before they are smoothed in space."""
        return self.name + UNSMOOTHED

    @property
    def confidence(self) -> str:
        """obs: agreement, the share of seeds and views that put a cell where the final labels do, 0 to 1."""
        return f"{self.name}_confidence"

    @property
    def total(self) -> str:
        """obs: the sum of a cell's values before they are normalised."""
        return f"{self.name}_total"

    @property
    def seed(self) -> str:
        """obs: how the columns of single seeds begin."""
        return f"{self.name}_seed_"

    @property
    def embedding(self) -> str:
        """obsm: what was clustered."""
        return f"X_{self.name}"

    @property
    def umap(self) -> str:
        """obsm: the UMAP, where the data have an obsm['X_umap'] of their own."""
        return f"X_umap_{self.name}"

    @property
    def graph(self) -> str:
        """obsp: the cell graph A, or that of the spots."""
        return f"{self.name}_graph"

    @property
    def neighbors(self) -> str:
        """uns: scanpy's neighbours of the embedding, for its `neighbors_key`.

        The graphs are obsp[NAME_connectivities] and obsp[NAME_distances].
        """
        return f"{self.name}_neighbors"

    @property
    def parameters(self) -> str:
        """uns: settings, versions, scores, and the losses of every epoch."""
        return self.name

    @property
    def colours(self) -> str:
        """uns: a colour per label, where scanpy looks for it."""
        return f"{self.name}_colors"


UNSMOOTHED = "_unsmoothed"  # ends the name of labels before they are smoothed in space
OURS = Keys()  # of the run's own files, and the default of key_added
