# SPDX-License-Identifier: Apache-2.0
"""What this processor multiplies in hardware, and the arithmetic that follows from it.

| processor has | float32 file | bfloat16 file | int8 file |
| --- | --- | --- | --- |
| AMX (`amx_bf16`) | bfloat16 | bfloat16 | int8, which bfloat16 equals in speed and is thirty times as near |
| `avx512_bf16` alone | float32 | bfloat16, as the file asks | int8 |
| neither | float32 | refused | int8; fast with VNNI, else hardly faster than float32 |

A float16 file has rounded weights and is computed like a float32 one. AVX512-BF16 without AMX gave 7.4k rows/s where
float32 gave 12.6k (docs/experiments/precision.md). The backends of the CPU server import this too, so it imports
nothing of ours but the errors.
"""

from pathlib import Path
from typing import Final

from mcts_ext.errors import InvalidConfig

_AMX: Final = "amx_bf16"
_BFLOAT16: Final = ("avx512_bf16", _AMX)
_INT8: Final = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_flags() -> frozenset[str]:
    """The features that Linux reports for the first processor; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())


def choose_arithmetic(asked: str, *, stored: str, flags: frozenset[str]) -> tuple[str, str]:
    """The arithmetic of OpenVINO for a file of the precision `stored`, and why: f32 or bf16; `asked` may be auto.

    Raises:
        InvalidConfig: the file is bfloat16, the processor has no such products.
    """
    if asked != "auto":
        return asked, "as asked for"
    if stored == "bfloat16":
        if flags.isdisjoint(_BFLOAT16):
            raise InvalidConfig(
                f"expected a processor with {' or '.join(_BFLOAT16)} for a bfloat16 file, got one without; "
                "ask for precision f32 (config.pbtxt), or publish another precision"
            )
        return "bf16", "the file asks for it"
    if _AMX in flags:
        return "bf16", "the processor has AMX"
    return "f32", "the processor has no AMX, without which bfloat16 is slower"


def int8_pays(flags: frozenset[str]) -> bool:
    """Whether int8 is the best that a processor can serve."""
    return _AMX not in flags and not _INT8.isdisjoint(flags)
