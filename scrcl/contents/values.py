"""Find the expression values in an AnnData and say what they are: counts, logarithms, or something unusable."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.contents.features import Features, are_genes
from scrcl.contents.gene_names import symbol_columns
from scrcl.contents.kinds import NATURAL, Evidence, Kind, ValueKind, counts_of
from scrcl.contents.plain import plain
from scrcl.keys import COUNT_LAYERS, FEATURE_TYPES, HARMONY, LOG1P, OURS, PCS, SPATIAL_WEIGHT, UMAP
from scrcl.messages import UserError, log, one_line

Values = Literal["auto", "counts", "lognorm", "log2", "log10"]
# What a user says that values are
SAID: dict[str, Kind] = {
    "counts": Kind("fractional amounts"),
    "lognorm": Kind("log-normalised", NATURAL),
    "log2": Kind("log-normalised", 2.0),
    "log10": Kind("log-normalised", 10.0),
}
# Lower is better; 0 ends the search.
PREFERENCE: dict[ValueKind, int] = {
    "counts": 0,
    "log1p of counts": 0,
    "fractional amounts": 1,
    "log-normalised": 1,
    "scaled": 2,
    "not finite": 3,
    "empty": 4,
}
UNUSABLE = 2  # the preference from which on values cannot be used


class Expression(NamedTuple):
    """The values to work on.

    Attributes
    ----------
    cells
        AnnData with float32 CSR values in X, and the input's obs and obsm.
    kind
        What the values are, after 'log1p of counts' has been turned back into counts.
    slot
        Where they were found, for people to read.
    """

    cells: ad.AnnData
    kind: ValueKind
    slot: str

    def in_words(self) -> str:
        """Return what the values are and where they were found, for people to read."""
        return f"{self.kind}, in {self.slot}"


def find_expression(
    adata: ad.AnnData, layer: str = "auto", values: Values = "auto", features: Features = "genes"
) -> Expression:
    """Find the values to work on in X, in a layer or in .raw.

    Values that were only stored as log1p of counts are turned back into counts, and other logarithms are brought to
    the natural base.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    layer
        'X', 'raw', the name of a layer, or 'auto'. 'auto' takes the first that holds counts among X, the layers of
        `keys.COUNT_LAYERS`, and .raw. Failing that, it takes the first other non-negative values, in the same order,
        and only then any other layer.
    values
        What the values of X, or of `layer`, are: 'counts' (whole or not, not logarithms), 'lognorm' (natural
        logarithms), 'log2', 'log10', or 'auto' for what they look like.
    features
        'genes', or 'all' to keep what is no gene (`features.are_genes`).

    Raises
    ------
    UserError
        When the values are empty, not finite or not numbers, when names repeat, when the layer is not there, and when
        there are only scaled values: no formula undoes scaling.
    """
    require_content(adata)
    best: _Found | None = None
    for candidate in candidates(adata, layer, values):
        if best is not None and is_needless(candidate, best.slot, best.kind):
            break
        found = _found(adata, candidate.slot, features)
        if best is None or PREFERENCE[found.kind.name] < PREFERENCE[best.kind.name]:
            best = found
        if PREFERENCE[best.kind.name] == 0:
            break
    assert best is not None  # slots_of gives at least one, or raises
    refuse_unusable(best.kind.name, best.slot, adata)
    require_names(best.var.index, "gene name", "var_names_make_unique")
    how = conversion(best.kind, values, adata)
    best.matrix.data = how.convert(best.matrix.data)
    slot = best.slot + how.in_words
    log.info("Values: %s, in %s.", how.kind, slot)
    cells = ad.AnnData(best.matrix, obs=storable(adata.obs), var=storable(best.var), obsm=foreign(adata))
    return Expression(cells, how.kind, slot)


def candidates(adata: ad.AnnData, layer: str, values: Values) -> list[Slot]:
    """Return `slots_of` the data; only the first where the user says what its values are."""
    found = slots_of(adata, layer)
    return found if values == "auto" else found[:1]


def is_needless(candidate: Slot, best: str, kind: Kind) -> bool:
    """Return whether a last resort is not needed, since a usual place has usable values."""
    usual = not best.startswith("layers[") or _layer_in(best).lower().replace(".", "_") in COUNT_LAYERS
    return candidate.last_resort and usual and PREFERENCE[kind.name] < UNUSABLE


def _layer_in(slot: str) -> str:
    """Return the name of the layer at a place."""
    return slot.removeprefix("layers['").removesuffix("']")


class _Found(NamedTuple):
    """The values at one place: their matrix, their genes, and what they are."""

    matrix: sparse.csr_matrix
    var: pd.DataFrame
    kind: Kind
    slot: str


def _found(adata: ad.AnnData, slot: str, features: Features) -> _Found:
    """Return the genes' values at one place, and what they are."""
    matrix, var = _matrix(adata, slot)
    genes = are_genes(var, features)
    if not genes.all():
        matrix, var = matrix[:, genes], var[genes]
    evidence = Evidence(matrix.shape[0])
    evidence.add(matrix)
    return _Found(matrix, var, evidence.kind(), slot)


class Conversion(NamedTuple):
    """What is done to values before they are used.

    Attributes
    ----------
    kind
        What they are afterwards.
    base
        Of the logarithms that they are before; None for no logarithms.
    in_words
        A phrase that follows the place of the values, empty where nothing is done.
    """

    kind: ValueKind
    base: float | None
    in_words: str

    def convert(self, values: np.ndarray) -> np.ndarray:
        """Return values as they are used: counts in place of their logarithms, natural logarithms for others."""
        if self.base is None or not self.in_words:
            return values
        if self.kind == "counts":
            return counts_of(values, self.base).astype(values.dtype)
        return values * np.asarray(np.log(self.base), dtype=values.dtype)


def conversion(found: Kind, values: Values, adata: ad.AnnData) -> Conversion:
    """Return what is done to values of this kind.

    Parameters
    ----------
    found
        What the values themselves tell.
    values
        What the user says that they are, as for `find_expression`.
    adata
        uns['log1p'] may hold the base of the logarithms, as scanpy notes it.
    """
    kind = found
    if values != "auto":
        kind = SAID[values] if (found.name, values) != ("counts", "counts") else found
    if kind.name == "log1p of counts":
        base = kind.base or NATURAL
        return Conversion("counts", base, f", turned back from {_log_in_words(base, 'log1p')}")
    if kind.name != "log-normalised":
        return Conversion(kind.name, None, "")
    base = kind.base or _noted_base(adata)
    told = "" if np.isclose(base, NATURAL) else f", brought from {_log_in_words(base, '')} to natural logarithms"
    return Conversion(kind.name, base, told)


def _log_in_words(base: float, natural: str) -> str:
    """Return what a logarithm of this base is called."""
    return natural if np.isclose(base, NATURAL) else f"log{base:g}"


def _noted_base(adata: ad.AnnData) -> float:
    """Return the base that scanpy noted in uns['log1p'], or e."""
    noted = adata.uns.get(LOG1P)
    base = noted.get("base") if isinstance(noted, dict) else None
    try:
        return float(base) if base is not None and 1 < float(base) < np.inf else NATURAL
    except (TypeError, ValueError):
        return NATURAL


def require_content(adata: ad.AnnData) -> None:
    """Raise UserError when there are no cells or no genes, when barcodes repeat, or when a sparse matrix is damaged."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise UserError(f"The data hold {adata.n_obs} cells and {adata.n_vars} genes; there is nothing to cluster.")
    require_names(adata.obs_names, "cell barcode", "obs_names_make_unique")
    require_sound_indices(adata)


def foreign(adata: ad.AnnData) -> dict[str, Any]:
    """Return obsm without the entries that a run writes itself."""
    return {key: values for key, values in adata.obsm.items() if key not in (PCS, HARMONY, UMAP, OURS.embedding)}


def refuse_unusable(kind: ValueKind, slot: str, adata: ad.AnnData) -> None:
    """Raise UserError for values that are scaled or not finite."""
    if kind == "scaled":
        looked = ", ".join(candidate.slot for candidate in slots_of(adata, "auto"))
        raise UserError(
            f"The values in {slot} are negative in places, so they were scaled or corrected, which cannot be undone; "
            f"there are no others that can be used (looked at: {looked}), so save the file with raw counts in X, in "
            "layers['counts'] or in .raw."
        )
    if kind == "not finite":
        raise UserError(f"There are NaN or infinite values in {slot}; remove or impute them first.")


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of the table that h5ad can hold, without what an earlier run has written.

    Seurat exports have a column _index, which is a name that anndata keeps for itself.
    """
    return plain(frame.drop(columns=["_index", OURS.total, SPATIAL_WEIGHT], errors="ignore")).copy()


def layers_of(adata: ad.AnnData) -> dict[str, Any]:
    """Return the layers by name; from anndata 0.13 on `adata.layers` holds X as well, under None."""
    return {name: values for name, values in adata.layers.items() if name is not None}


class Slot(NamedTuple):
    """A place of values: 'X', '.raw' or layers['NAME'], and whether only the lack of others makes it worth a look."""

    slot: str
    last_resort: bool = False


def slots_of(adata: ad.AnnData, layer: str) -> list[Slot]:
    """Return where to look for values, in this order.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    layer
        As for `find_expression`.

    Raises
    ------
    UserError
        When there is no such layer, or no values at all.
    """
    layers = list(layers_of(adata))
    slots = ["X"] * (adata.X is not None) + [".raw"] * has_raw(adata)
    if layer == "auto":
        by_lower = {name.lower().replace(".", "_"): name for name in reversed(layers)}
        usual = [by_lower[name] for name in COUNT_LAYERS if name in by_lower]
        found = [*slots[:1], *(f"layers['{name}']" for name in usual), *slots[1:]]
        others = [f"layers['{name}']" for name in layers if name not in usual]
        if not found and not others:
            raise UserError("There is no X, no .raw and no layer, so the data hold no values.")
        return [*map(Slot, found), *(Slot(name, last_resort=True) for name in others)]
    for slot in slots:
        if layer in (slot, slot.removeprefix(".")):
            return [Slot(slot)]
    if layer not in adata.layers:
        there = ", ".join([*slots, *(f"the layer {name}" for name in layers)]) or "no values at all"
        raise UserError(f"--layer {layer} is not in the data, which have {there}.")
    return [Slot(f"layers['{layer}']")]


def _matrix(adata: ad.AnnData, slot: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Return a float32 CSR copy of the values at `slot`, and their genes."""
    values, var = values_at(adata, slot)
    try:
        return as_matrix(values), var
    except (TypeError, ValueError) as error:
        raise UserError(f"The values in {slot} are not numbers ({one_line(error)}).") from error


def as_matrix(values: Any, copy: bool = True) -> sparse.csr_matrix:
    """Return values of any type as float32 CSR without explicit zeros.

    Parameters
    ----------
    values
        [N, G], dense or sparse.
    copy
        False when the values may be changed in place.

    Raises
    ------
    TypeError, ValueError
        When they are not numbers.
    """
    if hasattr(values, "dask"):  # in a view, which is not worked on in blocks
        values = values.compute()
    if np.iscomplexobj(values):
        raise TypeError("they are complex")
    if sparse.issparse(values) and values.dtype == np.float16:  # which scipy cannot convert
        values = _with_data(values, values.data.astype(np.float32))
    if not sparse.issparse(values):
        values = np.asarray(values, dtype=np.float64 if values.dtype.kind in "OSU" else None)
    with np.errstate(over="ignore"):  # a value too large for float32 becomes inf, which value_kind reports
        matrix = sparse.csr_matrix(values, dtype=np.float32, copy=copy)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _with_data(matrix: Any, data: np.ndarray) -> Any:
    """Return a sparse matrix of the same form with other data."""
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def has_raw(adata: ad.AnnData) -> bool:
    """Return whether there is a .raw.

    anndata's backed mode makes one without genes where a file says that it has none.
    """
    return adata.raw is not None and adata.raw.n_vars > 0


def values_at(adata: ad.AnnData, slot: str) -> tuple[Any, pd.DataFrame]:
    """Return the values at one place, as they are stored, and their genes.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    slot
        One of the places that `slots_of` returns.
    """
    own, other = adata.var, adata.raw.var if has_raw(adata) else None
    if slot == ".raw":
        return adata.raw.X, _with_names_of(adata.raw.var, own)
    values = adata.X if slot == "X" else adata.layers[_layer_in(slot)]
    return values, own if other is None else _with_names_of(own, other)


def _with_names_of(var: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return var with symbols and feature types that only the other table has, by the genes' ids."""
    wanted = [*symbol_columns(other), *(key for key in FEATURE_TYPES if key in other)]
    missing = [key for key in wanted if key not in var]
    if not missing or symbol_columns(var) and not set(missing) & set(FEATURE_TYPES):
        return var
    if not other.index.is_unique or not var.index.isin(other.index).any():
        return var
    return var.join(other[missing].astype(object))


def require_sound_indices(adata: ad.AnnData) -> None:
    """Raise UserError for a sparse matrix with indices outside it, which scipy does not check and crashes on."""
    if adata.is_view:  # looking at it would slice it
        return
    parts: dict[str, Any] = {"X": adata.X, ".raw": adata.raw.X if has_raw(adata) else None}
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        parts |= {f"{slot}[{key!r}]": values for key, values in getattr(adata, slot).items() if key is not None}
    for slot, values in parts.items():
        if sparse.issparse(values):
            try:
                values.check_format(full_check=True)
            except ValueError as error:
                raise UserError(
                    f"The sparse matrix in {slot} is damaged ({one_line(error)}); save or download it again."
                ) from error


def require_names(names: pd.Index, what: str, remedy: str) -> None:
    """Raise UserError when a name repeats, or when no file can hold it.

    Parameters
    ----------
    names
        Barcodes or gene names.
    what
        What they are, as named in the error.
    remedy
        The method of AnnData that makes them unique.
    """
    odd = next((name for name in map(str, names) if "\0" in name or not _is_text(name)), None)
    if odd is not None:
        raise UserError(f"The {what} {odd!r} contains a character that cannot be written to a file; rename it.")
    if not names.is_unique:
        twice = names[names.duplicated()]
        raise UserError(
            f"The {what} {twice[0]!r} occurs more than once ({len(twice)} repeats in total); "
            f"make them unique, e.g. adata.{remedy}()."
        )


def _is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
