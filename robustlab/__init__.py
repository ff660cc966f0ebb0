"""What does it cost to undo an open-weight model's safeguards, and which safety properties survive?"""

__version__ = "0.1.0"
