"""A configuration's identity and what it refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bench.trial import CommSpec, Configuration, EnvironmentSpec, Limits, ModelSpec, Trial
from tests import factories

GOLDEN = "d06c21c3063d15c0"
"""Identity of `factories.configuration()`. When it moves, every recorded sweep is orphaned."""

REFERENCE_KEY = "9ce3cec5400dc7b9"
"""Of the same configuration's reference."""


def model(heads, kv_heads):
    return ModelSpec(
        name="m", layers=1, hidden=2 * heads, heads=heads, kv_heads=kv_heads, ffn=8, vocab=8
    )


def test_hash_does_not_move():
    assert factories.configuration().hash == GOLDEN


def test_hash_ignores_limits():
    assert factories.configuration(limits=Limits(timeout_s=5, hang_s=1)).hash == GOLDEN


def test_a_gradient_check_that_was_a_boolean_keeps_its_hash():
    off = factories.configuration(gradient_check=False)
    assert off.gradient_check == "off"
    assert off.hash == factories.configuration(gradient_check="off").hash == "e82c38d50115db3c"
    assert factories.configuration(gradient_check=True).hash == GOLDEN
    assert factories.configuration(gradient_check="exact").hash != GOLDEN


def test_a_default_that_is_spelt_out_is_the_same_configuration():
    assert factories.configuration(zero=1, seq_len=512, deepspeed={}).hash == GOLDEN


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"seq_len": 1024}, id="sequence"),
        pytest.param({"deepspeed": {"gradient_clipping": 1.0}}, id="deepspeed"),
        pytest.param({"environment": factories.environment("other")}, id="environment-name"),
        pytest.param({"comm": CommSpec(name="gloo")}, id="comm"),
        pytest.param({"memory_limit": 2**30}, id="memory-limit"),
        pytest.param({"matmul": "tf32"}, id="matmul"),
        pytest.param({"sdpa": "math"}, id="sdpa"),
        pytest.param({"reference": "token_mean"}, id="reference"),
        pytest.param({"mesh_setup": "megatron"}, id="mesh-setup"),
        pytest.param({"model": factories.TINY.model_copy(update={"loss_tiles": 2})}, id="tiles"),
    ],
)
def test_hash_tells_configurations_apart(fields):
    assert factories.configuration(**fields).hash != GOLDEN


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        ({}, "float32"),
        ({"matmul": "tf32"}, "tf32"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "bfloat16", "matmul": "tf32"}, "bfloat16"),
    ],
    ids=str,
)
def test_precision_of_products(fields, precision):
    assert factories.configuration(**fields).precision == precision


def test_hash_survives_json():
    config = factories.configuration(deepspeed={"b": 1, "a": {"c": [1, 2]}})
    assert Configuration.model_validate_json(config.model_dump_json()).hash == config.hash


def test_trial_identity():
    trial = Trial(configuration=factories.configuration(), round=2, attempt=1)
    assert trial.key == (GOLDEN, 2)
    assert trial.id == f"{GOLDEN}-r2-a1"


def test_reference_is_shared_by_what_only_splits_the_work():
    key = factories.configuration().reference_key
    same = {
        "loss": "local",
        "zero": 3,
        "dtype": "bfloat16",
        "environment": factories.environment("x"),
    }
    assert factories.configuration(**same).reference_key == key
    assert factories.configuration(world=8, sp=4).reference_key == key  # dp is 2 in both
    assert factories.configuration(sp=4).reference_key != key
    assert factories.configuration(seed=1).reference_key != key
    execution = {"name": "x", "activation_checkpointing": True, "loss_tiles": 4}
    renamed = factories.TINY.model_copy(update=execution)
    assert factories.configuration(model=renamed).reference_key == key


def test_the_token_mean_has_a_reference_of_its_own_and_the_replica_mean_keeps_its_key():
    assert factories.configuration().reference_key == REFERENCE_KEY
    assert factories.configuration(reference="replica_mean").hash == GOLDEN
    assert factories.configuration(reference="token_mean").reference_key != REFERENCE_KEY
    with pytest.raises(ValidationError, match="reference"):
        factories.configuration(reference="mean")


def test_reference_depends_on_sp_only_where_the_mask_does():
    def key(mask: str, world: int, sp: int) -> str:
        return factories.configuration(mask=mask, world=world, sp=sp).reference_key

    assert key("empty_shard", 4, 2) != key("empty_shard", 8, 4)
    assert key("prompt", 4, 2) == key("prompt", 8, 4)


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        pytest.param({}, [], id="runs"),
        pytest.param({"seq_len": 511}, ["seq_len=511 is not divisible by sp=2"], id="sequence"),
        pytest.param(
            {"world": 3, "sp": 3, "seq_len": 510},
            ["model.heads=4 is not divisible by sp=3"],
            id="heads",
        ),
        pytest.param(
            {"attention": "local"},
            ["attention=local computes within one rank, but sp=2"],
            id="local",
        ),
        pytest.param({"attention": "local", "sp": 1}, [], id="local-alone"),
        pytest.param({"sp": 4}, [], id="kv-heads-replicated"),
        pytest.param(
            {
                "sp": 4,
                "model": model(heads=24, kv_heads=6),
            },
            ["model.kv_heads=6 is neither a multiple nor a divisor of sp=4"],
            id="kv-heads",
        ),
        pytest.param(
            {
                "sp": 4,
                "model": model(heads=12, kv_heads=3),
            },
            ["model.kv_heads=3 is neither a multiple nor a divisor of sp=4"],
            id="fewer-kv-heads",
        ),
    ],
)
def test_unsupported_reasons(fields, reasons):
    assert factories.configuration(**fields).unsupported_reasons() == reasons


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"sp": 3}, "sp=3 must divide world=4; allowed: 1, 2, 4", id="sp"),
        pytest.param({"sp": 0}, "sp", id="zero-sp"),
        pytest.param({"seq_len": -1}, "seq_len", id="negative"),
        pytest.param({"zero": 4}, "zero", id="stage"),
        pytest.param({"dtype": "float16"}, "dtype", id="dtype"),
        pytest.param({"seqlen": 5}, "seqlen", id="misspelt"),
        pytest.param({"options": {"a": object()}}, "options", id="not-json"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, named):
    with pytest.raises(ValidationError, match=named):
        factories.configuration(**fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"hidden": 66}, "model.hidden=66", id="hidden"),
        pytest.param({"hidden": 12}, "model.hidden=12", id="odd-head"),
        pytest.param({"kv_heads": 3}, "model.kv_heads=3", id="kv-heads"),
        pytest.param({"layers": 0}, "layers", id="layers"),
    ],
)
def test_models_whose_shapes_disagree_are_refused(fields, named):
    with pytest.raises(ValidationError, match=named):
        ModelSpec(**{**factories.TINY.model_dump(), **fields})


def test_an_environment_needs_versions_or_an_interpreter():
    with pytest.raises(ValidationError, match="environment 'x' needs both"):
        EnvironmentSpec(name="x", torch="2.2.2")
    assert EnvironmentSpec(name="x", python="bin/python").torch is None


def test_values_are_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        factories.configuration().sp = 4


def test_what_communication_implies():
    assert CommSpec(name="nccl").device == "cuda"
    assert CommSpec(name="gloo").device == "cpu"
    assert [CommSpec(name=n).emulated for n in ("gloo", "nccl", "nccl_over_gloo")] == [
        False,
        False,
        True,
    ]


def test_memory_that_cannot_be_enough_is_refused_before_anything_is_launched():
    # layers 2*(2*64*64 + 2*64*32 + 3*64*128), 5 norms of 64, two embeddings of 256*64
    weights = 4 * (2 * (8192 + 4096 + 24576) + 5 * 64 + 2 * 256 * 64)
    below = factories.configuration(memory_limit=weights - 1)
    assert below.unsupported_reasons() == [
        f"memory_limit={weights - 1} is below the {weights} bytes of the weights of model=tiny "
        "alone (zero=1, world=4): raise it, or choose a smaller model"
    ]
    assert factories.configuration(memory_limit=weights).unsupported_reasons() == []
    # ZeRO 3 holds a quarter of them
    assert factories.configuration(memory_limit=weights - 1, zero=3).unsupported_reasons() == []


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        pytest.param({"comm": "nccl", "matmul": "tf32"}, [], id="tf32"),
        pytest.param({"comm": "nccl", "sdpa": "cudnn", "dtype": "bfloat16"}, [], id="cudnn"),
        pytest.param({"comm": "gloo", "sdpa": "flash"}, [], id="flash-on-cpu"),
        pytest.param({"comm": "gloo", "sdpa": "math"}, [], id="math-on-cpu"),
        pytest.param(
            {"comm": "nccl", "matmul": "tf32", "dtype": "bfloat16"},
            ["matmul=tf32 changes nothing with dtype=bfloat16"],
            id="bfloat16",
        ),
        pytest.param(
            {"comm": "gloo", "matmul": "tf32"},
            ["matmul=tf32 changes nothing on CPU (comm=gloo)"],
            id="tf32-on-cpu",
        ),
        pytest.param(
            {"comm": "nccl_over_gloo", "sdpa": "efficient"},
            ["sdpa=efficient is no kernel on CPU (comm=nccl_over_gloo); there are flash and math"],
            id="efficient-on-cpu",
        ),
    ],
)
def test_precisions_and_kernels_that_cannot_be_had_are_unsupported(fields, reasons):
    comm = CommSpec(name=fields.pop("comm"))
    assert factories.configuration(comm=comm, **fields).unsupported_reasons() == reasons


def test_without_sequence_parallelism_there_is_nothing_to_tell_deepspeed():
    for told in ("auto", "no_mpu"):
        assert factories.configuration(sp=1, mesh_setup=told).unsupported_reasons() == []
    assert factories.configuration(sp=1, mesh_setup="megatron").unsupported_reasons() == [
        "mesh_setup=megatron has nothing to tell DeepSpeed with sp=1"
    ]


def test_capacity_on_cpu_needs_a_limit_and_chooses_its_lengths():
    without = factories.configuration(scenario="capacity", seq_len=511)
    assert without.unsupported_reasons() == [
        "scenario=capacity on CPU needs a memory_limit per rank, such as 1GiB"
    ]
    limited = factories.configuration(scenario="capacity", seq_len=511, memory_limit=2**30)
    assert limited.unsupported_reasons() == []
    for value in (0, -1, 1.5, True, "many"):
        odd = limited.model_copy(update={"options": {"resolution": value}})
        assert odd.unsupported_reasons() == [
            f"options.resolution={value}: must be a number of tokens from 1 on"
        ]


def test_weights_are_shared_by_all_lengths_and_splits():
    key = factories.configuration().weights_key
    assert factories.configuration(seq_len=1024, sp=4, mask="none").weights_key == key
    assert factories.configuration(seed=1).weights_key != key
    wider = factories.TINY.model_copy(update={"vocab": 512})
    assert factories.configuration(model=wider).weights_key != key
