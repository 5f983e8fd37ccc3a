"""Settings: precedence, types, texts, published files, and every wrong one named."""

from __future__ import annotations

import dataclasses
import logging
import string

import numpy as np
import pytest
import yaml

from scrcl.commands import flags
from scrcl.genes.settings import MarkerSettings
from scrcl.messages import UserError, log
from scrcl.recipes import FIELDS, RECIPES, RUN_ONLY, CellSettings, TissueSettings
from scrcl.settings import PAPER, Settings, load, read_yaml

PUBLISHED = sorted((path.parent.name, path.stem) for path in PAPER.glob("*/*.yaml"))
WORDS = {"formats": "a file", "drawings": "some"}  # what the commands fill in beside a recipe's own words


@pytest.fixture(autouse=True)
def log_level() -> None:
    """The level of the log, which reading flags sets, is left as it was."""
    before = log.level
    yield
    log.setLevel(before)


def parse(*argv: str, recipe: type[Settings] = CellSettings, **short: str) -> Settings:
    return flags.parse(recipe, argv, "scrcl", "What it does.", WORDS, **short)


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 7\nlr: 1e-3\nseeds: 4\n")
    settings = parse("--config", str(path), "--epochs", "9")
    assert (settings.epochs, settings.lr, settings.seeds, settings.hidden) == (
        9,
        1e-3,
        [5, 15, 25, 35],
        CellSettings().hidden,
    )


ALL = [*RECIPES.values(), MarkerSettings]


@pytest.mark.parametrize("settings", ALL)
def test_every_setting_is_a_flag_with_help(settings):
    text = flags.build_parser(settings, "scrcl", "What it does.", WORDS).format_help()
    assert "(default: )" not in " ".join(text.split())
    assert "What it does." in text
    for field in dataclasses.fields(settings):
        assert f"--{field.name.replace('_', '-')}" in text and settings.fields[field.name].help


@pytest.mark.parametrize("settings", ALL)
def test_every_setting_has_a_field_and_every_text_is_filled_in(settings):
    for field in dataclasses.fields(settings):
        assert field.name in settings.fields
        text = settings.help_of(field.name, **WORDS)
        assert text and not {"{", "}"} & set(text), field.name


def test_no_field_is_of_no_recipe():
    used = {field.name for recipe in RECIPES.values() for field in dataclasses.fields(recipe)}
    assert used == set(FIELDS) and set(RUN_ONLY) < used
    assert {field.name for field in dataclasses.fields(MarkerSettings)} == set(MarkerSettings.fields)


@pytest.mark.parametrize("settings", ALL)
def test_settings_of_a_group_stand_together(settings):
    """A heading in --help comes once, with all that belongs under it."""
    groups = [settings.fields[field.name].group for field in dataclasses.fields(settings)]
    assert [a for a, b in zip(groups, [*groups[1:], None]) if a != b] == list(dict.fromkeys(groups))


def test_texts_name_no_words_but_those_that_are_filled_in():
    known = set(WORDS) | set(CellSettings.words)
    assert set(CellSettings.words) == set(TissueSettings.words)
    for name, field in FIELDS.items():
        assert {word for _, word, *_ in string.Formatter().parse(field.help) if word is not None} <= known, name


def test_a_number_of_seeds_or_which():
    assert parse("--seed", "3").seeds == [3]
    assert parse("--seeds", "3").seeds == [5, 15, 25]
    assert parse("--seeds", "5", "15").seeds == [5, 15]
    assert CellSettings(seeds=2).seeds == [5, 15] and CellSettings(seeds=[2]).seeds == [2]
    assert parse().seeds == [] and parse().with_seeds(1000).seeds == [5, 15, 25, 35, 45]
    assert parse("--config", "paper").seeds == [5, 15, 25, 35, 45]


def test_the_published_sets_and_one_for_all_others():
    names = {task: [name for folder, name in PUBLISHED if folder == task] for task in RECIPES}
    assert len(names["SC"]) == 11 and len(names["ST"]) == 16 and all("any" in found for found in names.values())


@pytest.mark.parametrize(("task", "name"), PUBLISHED)
def test_published_files_load_and_hold_only_what_differs(task, name):
    own, recipe = yaml.safe_load((PAPER / task / f"{name}.yaml").read_text()), RECIPES[task]
    base = dataclasses.asdict(recipe() if name == "any" else load(recipe, "paper/any", {}))
    settings = dataclasses.asdict(load(recipe, f"paper/{name}", {}))
    for key, value in own.items():
        assert settings[key] == value and base[key] != value, key


# The published table: hops, dropout, weight decay, lr, HVGs, lambda1, lambda2, t, refined width (0: number of types).
TABLE = {
    "Quake_Smart-seq2_Diaphragm": ([0, 0], 0.1, 1e-3, 5e-4, 1500, 100, 0.01, 1, 0),
    "Quake_Smart-seq2_Lung": ([5, 0], 0.1, 1e-3, 5e-4, 1000, 100, 100, 1, 0),
    "Quake_Smart-seq2_Trachea": ([0, 0], 0.1, 1e-3, 5e-3, 500, 10, 0.01, 1, 9),
    "Quake_10x_Bladder": ([5, 0], 0.5, 0.1, 5e-3, 1000, 10, 0.01, 0.1, 0),
    "Quake_10x_Limb_Muscle": ([5, 0], 0.3, 0.1, 1e-4, 1000, 100, 0.1, 0.1, 0),
    "Quake_10x_Spleen": ([0, 0], 0.1, 1e-3, 5e-4, 500, 100, 1, 1, 0),
    "li_tumor": ([0, 0], 0.3, 0.1, 1e-5, 2000, 100, 10, 0.1, 0),
    "human_ESC": ([4, 2], 0.3, 0.01, 1e-5, 1000, 10, 100, 0.1, 0),
    "Zeisel": ([4, 2], 0.3, 0.1, 5e-5, 1500, 100, 0.01, 0.1, 0),
    "Baron_human": ([5, 0], 0.3, 0.1, 5e-5, 2000, 0.01, 0.1, 0.1, 0),
    "any other": ([0, 0], 0.3, 0.1, 1e-4, 2000, 100, 1, 0.1, 0),
}
COLUMNS = ("hops", "dropout", "weight_decay", "lr", "n_top_genes", "lambda1", "lambda2", "temperature", "refined_width")
COMMON = {
    "hidden": 1500,
    "epochs": 500,
    "plateau": 0,
    "n_neighbors": 15,
    "gene_neighbors": 5,
    "encoder_input": "counts",
    "graph_on": "genes",
    "metric": "cosine",
    "consistency": "published",
    "embedding": "refined",
    "cluster_method": "kmeans",
    "seeds": [5, 15, 25, 35, 45],
}


@pytest.mark.parametrize("name", TABLE)
def test_published_settings(name):
    """As literals, so that a change of the default recipe cannot change them unseen."""
    settings = parse("--dataset", f"some/where/{name}.h5ad", "--config", "paper")
    expected = dict(zip(COLUMNS, TABLE[name])) | COMMON
    assert {key: getattr(settings, key) for key in expected} == expected


# The published table for spots: hops, lambda1, lambda2, HVGs, neighbours, refined width.
ST_TABLE = {
    "151507": ([10, 8], 200, 1, 3000, 15, 0),
    "151508": ([10, 8], 200, 0.01, 3000, 15, 0),
    "151509": ([10, 8], 50, 0.05, 3000, 15, 0),
    "151510": ([10, 8], 200, 0.5, 3000, 15, 0),
    "151669": ([10, 8], 100, 0.01, 3000, 15, 0),
    "151670": ([10, 8], 100, 0.1, 3000, 15, 0),
    "151671": ([1, 5], 100, 0.1, 3000, 15, 0),
    "151672": ([5, 7], 100, 0.01, 3000, 15, 0),
    **dict.fromkeys(["151673", "151674", "151675", "151676"], ([10, 8], 100, 0.1, 3000, 5, 0)),
    "Human_Breast_Cancer": ([5, 1], 200, 1, 1000, 3, 100),
    "Mouse_Brain_Anterior": ([1, 0], 100, 1, 1000, 3, 100),
    "Mouse_Embryo_E9.5": ([5, 1], 200, 0.1, 1000, 3, 100),
    "any other": ([0, 0], 100, 1, 3000, 15, 0),
}
ST_COLUMNS = ("hops", "lambda1", "lambda2", "n_top_genes", "n_neighbors", "refined_width")
ST_COMMON = {
    "hvg_flavor": "seurat_v3",
    "encoder_input": "uncentred",
    "gene_weights": "none",
    "graph": "knn",
    "gene_neighbors": 5,
    "hidden": 1500,
    "epochs": 500,
    "plateau": 0,
    "dropout": 0.3,
    "weight_decay": 0.1,
    "lr": 1e-4,
    "temperature": 0.1,
    "consistency": "published",
    "embedding": "refined",
    "cluster_method": "kmeans",
    "refine_neighbors": 50,
    "seeds": [5, 15, 25, 35, 45],
}


@pytest.mark.parametrize("name", ST_TABLE)
def test_published_settings_for_spots(name):
    settings = parse("--dataset", f"some/where/{name}", "--config", "paper", recipe=TissueSettings)
    expected = dict(zip(ST_COLUMNS, ST_TABLE[name])) | ST_COMMON
    assert {key: getattr(settings, key) for key in expected} == expected


@pytest.mark.parametrize("inner", ["outs", "outs/binned_outputs/square_008um"])
def test_published_settings_of_a_sample_by_its_inner_folder(inner):
    settings = parse("--dataset", f"some/where/151673/{inner}", "--config", "paper", recipe=TissueSettings)
    assert settings.hops == [10, 8] and settings.n_neighbors == 5


@pytest.mark.parametrize("graph", ["radius", "delaunay"])
def test_a_number_of_neighbours_that_would_have_no_effect(graph):
    with pytest.raises(UserError, match=f"--n-neighbors has no effect on --graph {graph}"):
        parse("--graph", graph, "--radius", "2", "--n-neighbors", "7", recipe=TissueSettings)


def test_published_settings_by_name():
    assert parse("--dataset", "Baron_human1.h5ad", "--config", "paper/Baron_human").lambda1 == 0.01
    assert parse("--dataset", "Zeisel.filtered", "--config", "paper").n_top_genes == 2000


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--epoch", "3"], "--epoch"),
        (["--epochs", "three"], "three"),
        (["--epochs", "0"], "--epochs must be above 0"),
        (["--epochs", "9" * 400], "epochs"),
        (["--threads", "3000000000"], "--threads"),
        (["--seed", "4294967296"], "--seeds"),
        (["--n-top-genes", "1"], "--n-top-genes"),
        (["--n-clusters", "²"], "--n-clusters"),
        (["--lr", "nan"], "lr"),
        (["--dropout", "1"], "--dropout"),
        (["--hops", "1"], "--hops"),
        (["--seeds", "5", "5"], "twice"),
        (["--seeds", "0"], "how many seeds"),
        (["--seeds", "1000"], "--seed 1000"),
        (["--seed", "x"], "--seed"),
        (["--plateau", "-1"], "--plateau"),
        (["--n-clusters", "1"], "--n-clusters"),
        (["--n-clusters", "many"], "--n-clusters"),
        (["--n-neighbors", "1"], "--n-neighbors"),
        (["--cluster-method", "magic"], "magic"),
        (["--mixture-dims", "0"], "--mixture-dims"),
        (["--mixture-dims", "5", "--cluster-method", "kmeans"], "--mixture-dims has no effect"),
        (["--mixture-rounds", "7", "--cluster-method", "leiden"], "--mixture-rounds has no effect"),
        (["--mixture-rounds", "-1"], "--mixture-rounds"),
        (["--min-cells", "0"], "--min-cells must be above 0"),
        (["--target-sum", "0"], "--target-sum must be a number above 0 or 'median' or 'auto'"),
        (["--target-sum", "mean"], "--target-sum must be a number above 0 or 'median' or 'auto'"),
        (["--target-sum", "inf"], "--target-sum must be a number above 0 or 'median' or 'auto'"),
        (["--mixture-rounds", "1000000000"], "--mixture-rounds"),
        (["--config", "paper/Nobody"], "Nobody.*Zeisel"),
        (["--config", "no_such_file.yaml"], "cannot be read"),
    ],
)
def test_wrong_flags(argv, says):
    with pytest.raises(UserError, match=says):
        parse(*argv)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch: 3", "unknown setting 'epoch'"),
        ("epochs: 3.5", "epochs does not take"),
        ("epochs: yes", "epochs does not take"),
        ("figures: 3", "figures does not take"),
        ("cluster_method: magic", "it takes gmm"),
        ("- a list", "must hold"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_wrong_yaml(tmp_path, text, says):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        parse("--config", str(path))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--graph", "radius", "--radius", "-1"], "--radius must not be negative"),
        (["--refine-neighbors", "-1"], "--refine-neighbors must not be negative"),
        (["--graph", "hexagons"], "hexagons"),
        (["--metric", "cosine"], "--metric"),
        (["--config", "paper/Zeisel"], "Zeisel.*151673"),
        (["--target-sum", "auto"], "--target-sum must be a number above 0 or 'median', not 'auto'"),
        (["--n-neighbors", "0"], "--n-neighbors"),
    ],
)
def test_wrong_flags_for_spots(argv, says):
    with pytest.raises(UserError, match=says):
        parse(*argv, recipe=TissueSettings)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--epoch", "3"], r"There is no flag --epoch\W+did you mean --epochs\?"),
        (["--epoch=3"], r"There is no flag --epoch\W+did you mean --epochs\?"),
        (["mine", "--Epochs", "3"], r"There is no flag --Epochs\W+did you mean --epochs\?"),
        (["--no-figure"], r"There is no flag --no-figure\W+did you mean --no-figures\?"),
        (["--zzzzzz"], "There is no flag --zzzzzz; --help lists all flags"),
        (["mine", "--zzzzzz", "3"], "There is no flag --zzzzzz; --help lists all flags"),
        (["mine", "yours"], "'yours' stands where no word is expected; --help lists all flags"),
        (["--epochs"], "--epochs: expected one argument; --help lists all flags"),
    ],
)
def test_a_mistyped_flag_names_the_nearest(argv, says):
    with pytest.raises(UserError, match=rf"{says}\)?(; --help lists all flags)?\.$"):
        parse(*argv)


@pytest.mark.parametrize(("name", "near"), [("Zeisl", "Zeisel"), ("baron_human", "Baron_human")])
def test_a_mistyped_published_set_names_the_nearest(name, near):
    with pytest.raises(UserError, match=rf"There are no published settings for '{name}'\W+did you mean {near}\?"):
        parse("--config", f"paper/{name}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch: 3", r"has an unknown setting 'epoch'\W+did you mean epochs\?"),
        ("n_neighbours: 3", r"has an unknown setting 'n_neighbours'\W+did you mean n_neighbors\?"),
        ("radius: 3", "has an unknown setting 'radius'.*--help lists all of them"),  # of the other recipe
        ("cluster_method: gmn", r"cluster_method does not take the value 'gmn'; it takes gmm, kmeans.*mean gmm\?"),
        ("metric: cosin", r"metric does not take the value 'cosin'; it takes euclidean, cosine.*mean cosine\?"),
    ],
)
def test_mistyped_settings_in_yaml_say_the_nearest(tmp_path, text, says):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        parse("--config", str(path))


@pytest.mark.parametrize(
    "argv",
    [
        ["Zeisel"],
        ["--dataset", "Zeisel"],
        ["Zeisel", "--epochs", "7"],
        ["--epochs", "7", "Zeisel"],
        ["--seed", "7", "Zeisel", "--quiet"],
    ],
)
def test_a_data_set_by_itself_or_by_its_flag(argv):
    assert parse(*argv).dataset == "Zeisel"


def test_no_data_set_is_the_default_one():
    assert parse().dataset == CellSettings().dataset and parse(recipe=TissueSettings).dataset == ""


def test_published_settings_of_a_data_set_by_itself():
    assert parse("some/where/Zeisel.h5ad", "--config", "paper").n_top_genes == 1500


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["Zeisel", "--dataset", "Zeisel"], "--dataset and the data set by itself were both given"),
        (["--demo", "151673"], "--demo and the data set by itself were both given"),
        (["--demo", "--dataset", "151673"], "--demo and --dataset were both given"),
    ],
)
def test_a_data_set_is_not_given_twice(argv, says):
    with pytest.raises(UserError) as error:
        parse(*argv, demo="a simulated tissue")
    assert str(error.value) == f"{says}; leave one of them out."


def test_a_short_way_of_naming_a_data_set():
    assert parse("--demo", recipe=TissueSettings, demo="a simulated tissue").dataset == "demo"
    with pytest.raises(UserError, match="There is no flag --demo"):
        parse("--demo")


def test_quiet_is_warnings_alone():
    assert parse("--quiet") == parse() == CellSettings()
    for argv, level in ((["--quiet"], logging.WARNING), ([], logging.INFO)):
        parse(*argv)
        assert log.level == level


def test_the_settings_of_an_earlier_run(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("settings: {epochs: 7, dataset: mine}\nprovenance: {task: SC}\n")
    assert read_yaml(path, CellSettings) == {"epochs": 7, "dataset": "mine"}
    assert parse("--config", str(path), "yours") == CellSettings(epochs=7, dataset="yours")
    assert parse("--config", str(path)).dataset == "mine"


def test_numbers_of_numpy_are_numbers():
    settings = CellSettings(seeds=np.int64(2), epochs=np.int32(7), lr=np.float32(0.5), n_clusters=np.int64(8))
    assert (settings.seeds, settings.epochs, settings.lr, settings.n_clusters) == ([5, 15], 7, 0.5, "8")


def test_a_bound_is_said_as_it_is():
    with pytest.raises(UserError, match="--seeds must be below (2.32|4294967296), not 4294967296"):
        parse("--seed", "4294967296")
