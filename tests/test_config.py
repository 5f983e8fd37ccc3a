"""Settings: precedence, types, published files, and every wrong one named."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

import config
from config import CONFIGS, SCConfig
from utils import UserError

PUBLISHED = sorted(path.stem for path in (CONFIGS / "paper").glob("*.yaml"))


def parse(*argv: str) -> SCConfig:
    flags = vars(config.build_parser(SCConfig, "").parse_args(argv))
    return config.load(SCConfig, flags.pop("config"), flags)


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 7\nlr: 1e-3\nseeds: 4\n")
    settings = parse("--config", str(path), "--epochs", "9")
    assert (settings.epochs, settings.lr, settings.seeds, settings.hidden) == (9, 1e-3, [4], SCConfig().hidden)


def test_every_setting_is_a_flag_with_help():
    text = config.build_parser(SCConfig, "").format_help()
    for field in dataclasses.fields(SCConfig):
        assert f"--{field.name.replace('_', '-')}" in text and field.metadata["help"]


def test_seed_is_the_same_as_seeds():
    assert parse("--seed", "3").seeds == [3]
    assert parse("--seeds", "5", "15").seeds == [5, 15]


def test_the_ten_published_sets_and_one_for_all_others():
    assert len(PUBLISHED) == 11 and "any_sc" in PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_load_and_hold_only_what_differs(name):
    own = yaml.safe_load((CONFIGS / "paper" / f"{name}.yaml").read_text())
    base = dataclasses.asdict(SCConfig())
    if name != "any_sc":
        base = dataclasses.asdict(config.load(SCConfig, "paper/any_sc", {}))
    settings = dataclasses.asdict(config.load(SCConfig, f"paper/{name}", {}))
    for key, value in own.items():
        assert settings[key] == value and base[key] != value, key


def test_published_settings_by_data_set_name():
    """Zeisel's row of the published table, and the row for any other set."""
    zeisel = parse("--dataset", "Zeisel", "--config", "paper")
    expected = {
        "hops": [4, 2],
        "dropout": 0.3,
        "weight_decay": 0.1,
        "lr": 5e-5,
        "n_top_genes": 1500,
        "lambda1": 100,
        "lambda2": 0.01,
        "n_neighbors": 15,
        "temperature": 0.1,
        "hidden": 1500,
        "epochs": 500,
        "refined_width": 0,
        "encoder_input": "counts",
        "embedding": "refined",
    }
    assert {key: getattr(zeisel, key) for key in expected} == expected
    other = parse("--dataset", "some/where/mine.h5ad", "--config", "paper")
    assert (other.n_top_genes, other.lambda2, other.lr) == (2000, 1, 1e-4)
    assert parse("--dataset", "Baron_human1.h5ad", "--config", "paper/Baron_human").lambda1 == 0.01


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--epoch", "3"], "--epoch"),
        (["--epochs", "three"], "three"),
        (["--epochs", "0"], "--epochs must be above 0"),
        (["--lr", "nan"], "lr"),
        (["--dropout", "1"], "--dropout"),
        (["--hops", "1"], "--hops"),
        (["--seeds", "5", "5"], "twice"),
        (["--n-clusters", "1"], "--n-clusters"),
        (["--n-clusters", "many"], "--n-clusters"),
        (["--n-neighbors", "1"], "--n-neighbors"),
        (["--cluster-method", "magic"], "magic"),
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
