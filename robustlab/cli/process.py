"""What the command does to its own process before anything heavy is imported."""

import logging
import os
import warnings


def prepare_process() -> None:
    """Close files to others, forbid core dumps, and keep libraries quiet, before anything heavy is imported."""
    from robustlab.record.provenance import harden_process

    harden_process()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Libraries warn of their own next versions; the versions here are pinned, and the live line is the only voice.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
