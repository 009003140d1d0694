"""Run by test_parallel under torchrun: trains and writes the losses of every step.

Arguments: data, run folder, settings as JSON.
"""

from __future__ import annotations

import json
import sys

import torch

from tilemapper.training.run import train

torch.set_num_threads(1)
train(sys.argv[1], sys.argv[2], settings=json.loads(sys.argv[3]))
