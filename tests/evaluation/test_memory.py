"""Four times as many questions need no more memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, tempfile
from pathlib import Path
from argus.core.run import RecordWriter
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.model.load import load
from tests.runner.tiny import tiny_model

model, processor = load(str(tiny_model()), device="cpu", dtype="float32")
setting = {"domain": "objects", "size": 32, "families": ["existence", "colour", "count"], "questions": 4}
for samples in (64, 160, 640):  # the first warms up
    options = EvaluationOptions(scenario={"world": setting}, samples=samples, batch_size=4, blind=True)
    with tempfile.TemporaryDirectory() as folder, RecordWriter(Path(folder) / "records.jsonl") as records:
        assert evaluate(model, processor, options, run_part=records, progress=False).answered == samples
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_questions():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    _, quarter, whole = map(float, done.stdout.split())
    assert whole - quarter < 8, "MB of peak memory for 480 more questions with and without their pictures"
