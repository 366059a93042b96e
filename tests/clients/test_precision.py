# SPDX-License-Identifier: Apache-2.0
"""What follows from a processor's features: the arithmetic of a file, and whether int8 pays."""

import pytest

from clients.precision import choose_arithmetic, int8_pays
from mcts_ext.errors import InvalidConfig


@pytest.mark.parametrize(
    ("asked", "stored", "flags", "chosen"),
    [
        ("auto", "float32", {"avx512_bf16", "amx_bf16"}, "bf16"),
        ("auto", "float32", {"avx512_bf16"}, "f32"),
        ("auto", "float32", {"amx_bf16_or_so"}, "f32"),
        ("auto", "int8", set(), "f32"),
        ("auto", "float16", {"amx_bf16"}, "bf16"),
        ("auto", "float16", {"avx512_fp16"}, "f32"),
        ("auto", "bfloat16", {"avx512_bf16"}, "bf16"),
        ("auto", "bfloat16", {"amx_bf16"}, "bf16"),
        ("bf16", "float32", set(), "bf16"),
        ("f32", "bfloat16", {"amx_bf16"}, "f32"),
    ],
)
def test_bfloat16_is_chosen_only_with_amx_or_for_its_file(
    asked: str, stored: str, flags: set[str], chosen: str
) -> None:
    assert choose_arithmetic(asked, stored=stored, flags=frozenset(flags))[0] == chosen


def test_a_bfloat16_file_needs_a_processor_that_multiplies_it() -> None:
    with pytest.raises(InvalidConfig, match="expected a processor with avx512_bf16 or amx_bf16 for a bfloat16 file"):
        choose_arithmetic("auto", stored="bfloat16", flags=frozenset({"avx512f", "avx512_vnni"}))


@pytest.mark.parametrize(
    ("flags", "pays"),
    [
        ({"sse", "avx512_vnni"}, True),
        ({"avx_vnni"}, True),
        ({"avx512_vnni", "amx_bf16", "amx_int8"}, False),
        ({"avx512f", "avx512_bf16"}, False),
        (set(), False),
    ],
)
def test_whether_int8_pays(flags: set[str], pays: bool) -> None:
    assert int8_pays(frozenset(flags)) is pays
