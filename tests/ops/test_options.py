"""The options of a call: a value that things are looked up by, in this process and in others."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace

from gpuseq.ops.options import AugmentOptions

LOOKED_UP = """
import pickle, sys
from gpuseq.ops.options import AugmentOptions

sent = pickle.load(sys.stdin.buffer)
assert {AugmentOptions(dtype="float64", cval=3.0): "found"}[sent] == "found"
"""


def test_equal_options_are_found_by_each_other() -> None:
    options = AugmentOptions(dtype="float64", cval=3.0)
    found = {options: 1}
    assert found[AugmentOptions(dtype="float64", cval=3.0)] == 1
    assert replace(options, cval=4.0) not in found
    assert replace(replace(options, cval=4.0), cval=3.0) in found


def test_in_another_process_too() -> None:
    """Its texts have another hash, so none may be sent along."""
    options = AugmentOptions(dtype="float64", cval=3.0)
    hash(options)
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", LOOKED_UP]
    subprocess.run(command, input=pickle.dumps(options), check=True, timeout=300, env=environment)
