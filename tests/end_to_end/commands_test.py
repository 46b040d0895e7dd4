"""The commands that are no conversion, as a user runs them."""

import functools
import json
from pathlib import Path

import pytest

from container import entrypoint
from converters.families import PROGRAM as FAMILIES
from mappings import coverage
from tests import checkpoints
from tests.end_to_end.running import converted, recast

CONFIG = checkpoints.CONFIGS["grouped"]


def _source(folder: Path) -> Path:
    tensors = checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=1)
    return checkpoints.write_safetensors(folder, tensors, CONFIG, shard_bytes=100_000)


def test_quickstart_ends_with_success_and_done_in_each_output(tmp_path: Path) -> None:
    outcome = converted("quickstart", directory=tmp_path / "tour")
    assert outcome.text.rstrip().endswith("The process is completed without any errors.")
    done = {path.parent.name for path in (tmp_path / "tour").glob("*/DONE")}
    assert done == {"maxtext-stacked", "maxtext-unstacked", "hf-from-stacked", "hf-from-unstacked"}
    assert "Where to look:" in outcome.text


def test_quickstart_refuses_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert recast("quickstart", directory=tmp_path).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_quickstart_notices_a_single_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters import quickstart

    load = quickstart._load

    def flipped(folder: Path) -> dict[str, quickstart.AnyArray]:
        arrays = load(folder)
        if folder.name == "hf-from-stacked":
            name = "model.layers.2.self_attn.q_proj.weight"
            arrays[name] = arrays[name].copy()
            arrays[name].view("u2")[3, 5] ^= 1
        return arrays

    monkeypatch.setattr(quickstart, "_load", flipped)
    outcome = recast("quickstart", directory=tmp_path / "tour")
    assert outcome.code == 3
    assert "RecastErrorId.QUICKSTART_FAILED" in outcome.text
    assert "model.layers.2.self_attn.q_proj.weight differs" in outcome.text


def test_inspect_lists_a_safetensors_directory(tmp_path: Path) -> None:
    text = converted("inspect", str(_source(tmp_path / "hf"))).text
    assert "model.layers.0.self_attn.q_proj.weight" in text
    assert "bfloat16" in text
    assert "FINAL REPORT" not in text


def test_inspect_speaks_json(tmp_path: Path) -> None:
    listed = json.loads(converted("inspect", str(_source(tmp_path / "hf")), json=True).text)
    (norm,) = [tensor for tensor in listed["tensors"] if tensor["name"] == "model.norm.weight"]
    assert norm["shape"] == [CONFIG["hidden_size"]]
    assert norm["bytes"] == 2 * CONFIG["hidden_size"]


def test_inspect_reads_its_own_maxtext_output(tmp_path: Path) -> None:
    source = _source(tmp_path / "hf")
    converted("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    text = converted("inspect", str(tmp_path / "mt")).text
    assert "params.params.token_embedder.embedding" in text


def test_inspect_of_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    outcome = recast("inspect", str(tmp_path))
    assert outcome.code == 2
    assert outcome.text.startswith("FINAL REPORT FOR: `inspect ")


def test_inspect_of_something_else_says_what_it_looked_for(tmp_path: Path) -> None:
    outcome = recast("inspect", str(tmp_path))
    assert outcome.code == 2
    assert "RecastErrorId.SOURCE_NOT_RECOGNIZED" in outcome.text


def test_explain_names_both_places_of_every_tensor() -> None:
    text = converted("explain", "llama", "hf", "maxtext").text
    (query,) = [line for line in text.splitlines() if line.startswith("attn.q ")]
    assert "self_attn.q_proj.weight  [(h d) e]" in query
    assert "self_attention.query.kernel  [e h d] stacked l at 1" in query
    assert "INVERTIBLE" in query
    assert ".textproto:" in query


def test_explain_takes_options_and_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 5}))
    text = converted("explain", "llama", "hf", "maxtext", config=tmp_path, target_options="scan=false").text
    assert "decoder.layers_{l}." in text
    assert " x5" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("lama", "hf", "maxtext"), "There is no family lama"),
        (("llama", "hf", "gguf"), "llama has no layout gguf"),
        (("llama", "hf"), "The argument target_format is missing."),
    ],
)
def test_explain_refuses_what_it_does_not_know(arguments: tuple[str, ...], reason: str) -> None:
    outcome = recast("explain", *arguments)
    assert outcome.code == 2
    assert reason in outcome.text


def test_families_shows_the_table_and_what_is_behind_it_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    # Composing every published model takes seconds.
    monkeypatch.setattr(coverage, "table", functools.cache(coverage.table))
    text, described = converted("families").text, json.loads(converted("families", json=True).text)
    (row,) = (line for line in text.splitlines() if line.startswith("Llama3.1 "))
    assert row.split() == ["Llama3.1", "8B,", "70B,", "450B", "[1]", "yes", "yes", "yes", "yes"]
    assert "[1] 450B is that table's word for the published 405B." in text
    assert "rope=half|interleaved (by the model's name)" in text
    (entry,) = (row for row in described["rows"] if row["family"] == "Llama3.1")
    assert entry["sizes"] == {"8B": "llama3.1-8b", "70B": "llama3.1-70b", "450B": "llama3.1-405b"}
    assert set(entry["converted"].values()) == {True}
    assert {family["family"] for family in described["families"]} >= {"llama", "mistral", "deepseek3"}
    assert FAMILIES.reports is False


def test_families_lists_the_models_with_their_names_in_both_forms() -> None:
    text, listed = (
        converted("families", models=True).text,
        json.loads(converted("families", models=True, json=True).text),
    )
    (line,) = (line for line in text.splitlines() if line.startswith("llama3.1-8b "))
    assert "llama3.1-8b-instruct [meta-llama/Llama-3.1-8B-Instruct]" in line
    (entry,) = (model for model in listed if model["name"] == "llama3.1-8b")
    assert (entry["family"], entry["hub_id"]) == ("llama", "meta-llama/Llama-3.1-8B")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["recast"], 0, "usage: recast SUBCOMMAND"),
        (["recast", "--help"], 0, "hf-to-maxtext"),
        (["recast", "version"], 0, "recast 0."),
        (["recast", "hf-to-maxtex"], 2, "Did you mean hf-to-maxtext?"),
        (["recast", "hf-to-maxtext", "--help"], 0, "--save_dtype (bfloat16|float32|float16"),
    ],
)
def test_the_entrypoint_finds_its_subcommands(
    argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        entrypoint.main(argv)
    assert (ended.value.code or 0) == code
    assert said in capsys.readouterr().out
