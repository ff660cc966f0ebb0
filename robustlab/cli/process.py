"""What the command does to its own process before anything heavy is imported."""

import logging
import os
import sys
import warnings
from types import ModuleType
from typing import cast


def prepare_process() -> None:
    """Close files to others, forbid core dumps, and keep libraries quiet, before anything heavy is imported."""
    from robustlab.failpoints import arm
    from robustlab.record.provenance import harden_process

    harden_process()
    arm(os.environ)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Libraries warn of their own next versions; the versions here are pinned, and the live line is the only voice.
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Where it can be imported, bitsandbytes fetches a kernel from the hub, unpinned, and runs it.
    sys.modules["kernels"] = cast(ModuleType, None)
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
