"""Which built-in rows an attack's data mode selects; the same rows every time."""

from robustlab.data.rows import TrainRow, load_builtin, load_train_rows
from robustlab.errors import ConfigError
from robustlab.spec.attacks import WithheldData


def attack_rows(data: WithheldData) -> list[TrainRow]:
    """Requests with withheld completions, in file order.

    Args:
        data: How many rows the recipe asks for.

    Returns:
        The first ``data.attack_rows`` rows of the built-in set.

    Raises:
        ConfigError: If the recipe asks for more rows than there are.
    """
    rows = load_train_rows("mild_requests_attack")
    if data.attack_rows > len(rows):
        raise ConfigError(
            "data.attack_rows", f"asks for more than {len(rows)} rows, got {data.attack_rows}", "ask for fewer"
        )
    return rows[: data.attack_rows]


def benign_prompts(data: WithheldData) -> list[str]:
    """Benign prompts in the share that the recipe asks for.

    Args:
        data: ``benign_share`` is the benign part of attack rows and benign rows together, in [0, 1).

    Returns:
        The first prompts of the attack role, round(attack_rows * share / (1 - share)) of them.

    Raises:
        ConfigError: If the recipe asks for more rows than there are, or for nothing but benign ones.
    """
    prompts = [row.prompt for row in load_builtin("benign_prompts") if row.prompt and row.role == "attack"]
    if data.benign_share >= 1:
        raise ConfigError("data.benign_share", "must be less than 1, got 1", "leave room for attack rows")
    wanted = round(data.attack_rows * data.benign_share / (1 - data.benign_share))
    if wanted > len(prompts):
        problem = f"asks for more than {len(prompts)} benign rows, got {wanted}"
        raise ConfigError("data.benign_share", problem, "ask for fewer attack rows or a smaller share")
    return prompts[:wanted]
