# SPDX-License-Identifier: Apache-2.0
"""Choice of the arithmetic precision from the processor's features.

| processor has | float32 file | bfloat16 file | int8 file |
| --- | --- | --- | --- |
| AMX (`amx_bf16`) | bfloat16 | bfloat16 | int8; bfloat16 is as fast and thirty times as accurate |
| `avx512_bf16` only | float32 | bfloat16, as the file requires | int8 |
| neither | float32 | rejected | int8; fast with VNNI, else hardly faster than float32 |

A float16 file has rounded weights and is computed like a float32 file. AVX512-BF16 without AMX gave 7.4k rows/s,
float32 12.6k (docs/experiments/precision.md). The backends of the CPU server import this module, so it imports only our
errors.
"""

from pathlib import Path
from typing import Final

from mcts_ext.errors import InvalidConfig

_AMX: Final = "amx_bf16"
_BFLOAT16: Final = ("avx512_bf16", _AMX)
_INT8: Final = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_info(field: str) -> str:
    """Return what Linux reports of the first processor; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def cpu_flags() -> frozenset[str]:
    """Return the features of the first processor; empty where they are unknown."""
    return frozenset(cpu_info("flags").split())


def choose_arithmetic(requested: str, *, stored: str, flags: frozenset[str]) -> tuple[str, str]:
    """Return OpenVINO's arithmetic, f32 or bf16, for a file of precision `stored`, and the reason.

    `requested` is the result unless it is auto.

    Raises:
        InvalidConfig: if the file is bfloat16 and the processor does not support it.
    """
    if requested != "auto":
        return requested, "as requested"
    if stored == "bfloat16":
        if flags.isdisjoint(_BFLOAT16):
            raise InvalidConfig(
                f"expected a processor with {' or '.join(_BFLOAT16)} for a bfloat16 file, got one without; "
                "set precision f32 (config.pbtxt), or publish another precision"
            )
        return "bf16", "the file requires it"
    if _AMX in flags:
        return "bf16", "the processor has AMX"
    return "f32", "the processor has no AMX; bfloat16 is slower without it"


def int8_pays(flags: frozenset[str]) -> bool:
    """Return whether int8 is the fastest precision on this processor."""
    return _AMX not in flags and not _INT8.isdisjoint(flags)
