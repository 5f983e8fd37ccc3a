"""Which expression values an AnnData holds, where, and of what kind: counts, logarithms, or something that cannot be used."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.keys import COUNT_LAYERS, OURS, PCS, SPATIAL_WEIGHT, UMAP
from scrcl.messages import UserError, log, one_line

ValueKind = Literal["counts", "log1p of counts", "non-negative", "log-normalised", "scaled", "not finite", "empty"]
PREFERENCE: dict[ValueKind, int] = {
    "counts": 0,
    "log1p of counts": 0,
    "non-negative": 1,
    "log-normalised": 1,
    "scaled": 2,
    "not finite": 3,
    "empty": 4,
}


class Expression(NamedTuple):
    """cells: AnnData with float32 CSR values in X and the input's obs and obsm.
    kind: what the values are, after 'log1p of counts' has been undone.
    source: where they were found, for people."""

    cells: ad.AnnData
    kind: ValueKind
    source: str

    def in_words(self) -> str:
        return f"{self.kind}, in {self.source}"


def find_expression(adata: ad.AnnData, layer: str = "auto") -> Expression:
    """The values to work on, from X, a layer or .raw.

    'auto' takes the first that holds counts among X, the layers counts, count,
    raw_counts and raw, and .raw; failing that, the first other non-negative values in the
    same order. Values that were only stored as log1p of counts are turned back.
    Raises UserError for empty or non-finite values, duplicate names, and where
    there are only scaled values: standardising is not undone by any formula.
    """
    require_content(adata)
    kind: ValueKind | None = None
    for candidate in sources_of(adata, layer):
        values, genes = _matrix(adata, candidate)
        its_kind = value_kind(values)
        if kind is None or PREFERENCE[its_kind] < PREFERENCE[kind]:
            matrix, var, kind, source = values, genes, its_kind, candidate
        if PREFERENCE[kind] == 0:
            break
    assert kind is not None  # there is at least one source
    refuse_unusable(kind, source)
    require_names(var.index, "gene name", "var_names_make_unique")
    if kind == "log1p of counts":
        matrix.data = counts_of(matrix.data)
        kind, source = "counts", f"{source}, turned back from log1p"
    log.info("Values: %s, in %s.", kind, source)
    return Expression(ad.AnnData(matrix, obs=storable(adata.obs), var=storable(var), obsm=foreign(adata)), kind, source)


def require_content(adata: ad.AnnData) -> None:
    """Raise UserError where there are no cells or genes, barcodes stand twice, or sparse matrices are damaged."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise UserError(f"The data hold {adata.n_obs} cells and {adata.n_vars} genes; there is nothing to cluster.")
    require_names(adata.obs_names, "cell barcode", "obs_names_make_unique")
    require_sound_indices(adata)


def foreign(adata: ad.AnnData) -> dict[str, Any]:
    """obsm but for what a run writes itself."""
    return {key: values for key, values in adata.obsm.items() if key not in (PCS, UMAP, OURS.embedding)}


def refuse_unusable(kind: ValueKind, source: str) -> None:
    if kind == "scaled":
        raise UserError(
            f"The values in {source} are negative in places, so they were scaled or corrected, and nothing better was found; "
            "scaling cannot be undone, so save the file with raw counts in X, in layers['counts'] or in .raw."
        )
    if kind == "not finite":
        raise UserError(f"There are NaN or infinite values in {source}; remove or impute them first.")


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy that h5ad can hold, without what an earlier run has written: Seurat exports carry a column _index, and pandas strings are not written by default."""
    frame = frame.drop(columns=["_index", OURS.total, SPATIAL_WEIGHT], errors="ignore").copy()
    strings = [name for name in frame if isinstance(frame[name].dtype, pd.StringDtype)]
    return frame.astype(dict.fromkeys(strings, object))


def sources_of(adata: ad.AnnData, layer: str) -> list[str]:
    """Where to look for values: 'X', '.raw', or the name of a layer in the form layers['NAME']."""
    slots = ["X"] * (adata.X is not None) + [".raw"] * has_raw(adata)
    if layer == "auto":
        found = slots[:1] + [f"layers['{name}']" for name in COUNT_LAYERS if name in adata.layers] + slots[1:]
        if not found:
            raise UserError(f"There is no X, no .raw and no layer {' or '.join(COUNT_LAYERS)}; name one with --layer.")
        return found
    for slot in slots:
        if layer in (slot, slot.removeprefix(".")):
            return [slot]
    if layer not in adata.layers:
        there = ", ".join([*slots, *(f"the layer {name}" for name in adata.layers)]) or "no values at all"
        raise UserError(f"--layer {layer} is not in the data, which have {there}.")
    return [f"layers['{layer}']"]


def _matrix(adata: ad.AnnData, source: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """A float32 CSR copy of the values at source, and their genes."""
    values, var = values_at(adata, source)
    try:
        return as_matrix(values), var
    except (TypeError, ValueError) as error:
        raise UserError(f"The values in {source} are not numbers ({one_line(error)}).") from error


def as_matrix(values: Any, copy: bool = True) -> sparse.csr_matrix:
    """Values of any type as float32 CSR without explicit zeros. Raises TypeError or ValueError for what are no numbers."""
    if np.iscomplexobj(values):
        raise TypeError("they are complex")
    if not sparse.issparse(values):
        values = np.asarray(values, dtype=np.float64 if values.dtype.kind in "OSU" else None)
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, and is refused as such
        matrix = sparse.csr_matrix(values, dtype=np.float32, copy=copy)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def has_raw(adata: ad.AnnData) -> bool:
    """Whether there is a .raw; anndata's backed mode makes one without genes where a file says that it has none."""
    return adata.raw is not None and adata.raw.n_vars > 0


def values_at(adata: ad.AnnData, source: str) -> tuple[Any, pd.DataFrame]:
    """The values that sources_of means, as they are, and their genes."""
    if source == ".raw":
        return adata.raw.X, adata.raw.var
    if source == "X":
        return adata.X, adata.var
    return adata.layers[source.removeprefix("layers['").removesuffix("']")], adata.var


def require_sound_indices(adata: ad.AnnData) -> None:
    """Raise UserError for a sparse matrix whose indices point outside of it, which scipy does not look at and crashes on."""
    if adata.is_view:  # to look at it would slice it
        return
    parts: dict[str, Any] = {"X": adata.X, ".raw": adata.raw.X if has_raw(adata) else None}
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        parts |= {f"{slot}[{key!r}]": values for key, values in getattr(adata, slot).items()}
    for source, values in parts.items():
        if sparse.issparse(values):
            try:
                values.check_format(full_check=True)
            except ValueError as error:
                raise UserError(
                    f"The sparse matrix in {source} is damaged ({one_line(error)}); save or download it again."
                ) from error


def value_kind(matrix: sparse.csr_matrix) -> ValueKind:
    """What the values are, from the values alone.

    Negative values mean scaling; whole numbers are counts; fractions up to 25 are
    logarithms (log2 of a million is 20), those that expm1 turns into whole numbers
    being log1p of counts; larger fractions are TPM, RPKM or normalised counts.
    """
    values = matrix.data
    if values.size == 0:
        return "empty"
    if not np.isfinite(values).all():
        return "not finite"
    if (values < 0).any():
        return "scaled"
    if (values == np.rint(values)).all():
        return "counts"
    if values.max() > 25:
        return "non-negative"
    undone = np.expm1(np.minimum(values, 14).astype(np.float64))  # beyond e^14 float32 tells no whole number apart
    whole = np.abs(undone - np.rint(undone)) <= np.minimum(1e-5 * undone + 1e-5, 0.1)
    return "log1p of counts" if whole.all() else "log-normalised"


def counts_of(logarithms: np.ndarray) -> np.ndarray:
    """The counts whose log1p these are."""
    return np.rint(np.expm1(logarithms))


def require_names(names: pd.Index, what: str, remedy: str) -> None:
    """Raise UserError where a name stands more than once, or cannot be written to a file; remedy: the method of AnnData that helps."""
    odd = next((name for name in map(str, names) if "\0" in name or not _is_text(name)), None)
    if odd is not None:
        raise UserError(f"The {what} {odd!r} has a sign in it that no file can hold; rename it.")
    if not names.is_unique:
        twice = names[names.duplicated()]
        raise UserError(
            f"The {what} {twice[0]!r} stands more than once ({len(twice)} repeats in all); make them unique, e.g. adata.{remedy}()."
        )


def _is_text(name: str) -> bool:
    """Whether it can be written as UTF-8; half of a pair of surrogates cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
