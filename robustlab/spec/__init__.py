"""The fields that YAML files may have, and the loader that reads them. Knows nothing of torch, prices or runs."""
