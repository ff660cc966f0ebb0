"""``python -m robustlab`` is the ``robustlab`` command."""

from robustlab.cli.main import main

if __name__ == "__main__":
    main()
