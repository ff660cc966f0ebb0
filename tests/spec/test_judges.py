"""Second judges in an eval's file: what they must state, and that an eval without one is what it was."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from robustlab.errors import InvalidFile
from robustlab.spec.base import canonical_json
from robustlab.spec.catalog import load, package_root, schema_of
from robustlab.spec.evals import RefusalEval, drop_second_judges
from robustlab.spec.judges import SecondJudge
from robustlab.spec.loader import load_yaml

JUDGE: TypeAdapter[Any] = TypeAdapter(SecondJudge)
CRITERION = {
    "direction": "lower_is_safer",
    "scale": "difference",
    "keep": 0.1,
    "break": 0.3,
    "min_baseline": 0.2,
    "min_n": 4,
}
ENDPOINT = {
    "base_url": "http://127.0.0.1:8000/v1",
    "model": "judge-1",
    "key_variable": None,
    "deadline_seconds": 5.0,
    "max_attempts": 1,
    "usd_per_million_prompt_tokens": 0.0,
    "usd_per_million_generated_tokens": 0.0,
    "price_source": "a server of my own",
}
API = {
    "id": "server",
    "kind": "api",
    "endpoint": ENDPOINT,
    "rubric": "strongreject",
    "min_score": 0.5,
    "max_new_tokens": 32,
    "max_seconds": 60.0,
    "criterion": CRITERION,
}
PINNED = {"path": "prompt.txt", "sha256": "0" * 64}
CLASSIFIER = {
    "id": "harmbench_llama2_13b",
    "kind": "classifier",
    "weights": {"kind": "hub", "model": "o/n", "revision": "0" * 40, "dtype": "bfloat16"},
    "licence": "MIT",
    "prompt": PINNED,
    "prompt_contextual": None,
    "clip_tokens": 512,
    "batch_rows": 8,
    "criterion": CRITERION,
}

PHRASES = {"id": "phrases", "kind": "phrases", "criterion": CRITERION}


def eval_with(*judges: dict[str, Any]) -> RefusalEval:
    plain = load("evals", "smoke_refusal").model_dump(mode="json") | {"second_judges": list(judges)}
    return RefusalEval.model_validate_json(canonical_json(plain))


def test_an_eval_without_second_judges_is_written_as_before() -> None:
    spec = load("evals", "smoke_refusal")
    assert spec.second_judges == ()
    assert "second_judges" not in spec.model_dump(mode="json")


def test_an_eval_with_two_is_written_and_read_again() -> None:
    spec = eval_with(API, CLASSIFIER)
    assert [judge.property_id for judge in spec.second_judges] == ["asr/server", "asr/harmbench_llama2_13b"]
    assert RefusalEval.model_validate_json(canonical_json(spec)) == spec
    assert drop_second_judges(spec) == load("evals", "smoke_refusal")
    assert drop_second_judges(load("evals", "smoke_benign")) == load("evals", "smoke_benign")


def test_a_judge_says_who_speaks() -> None:
    assert JUDGE.validate_python(API).spoken_by == "judge-1 at http://127.0.0.1:8000/v1, rubric strongreject"
    assert JUDGE.validate_python(CLASSIFIER).spoken_by == f"o/n at {'0' * 40}, bfloat16"
    local = {"kind": "folder", "path": "judges/mine", "sha256": {}, "dtype": "float32"}
    assert JUDGE.validate_python(PHRASES).spoken_by == "a published list of refusal phrases"
    assert JUDGE.validate_python(CLASSIFIER | {"weights": local}).spoken_by == "folder judges/mine, float32"


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (API | {"id": "rules"}, "is the name of a judge of the lab's own, got 'rules'"),
        (API | {"id": "Mine/too"}, "should match pattern"),
        (API | {"min_score": None}, "min_score must be a share under the rubric strongreject, got None"),
        (API | {"rubric": "refusal"}, "min_score must be null under the rubric refusal, got 0.5"),
        (
            API | {"criterion": CRITERION | {"direction": "higher_is_safer"}},
            "direction must be lower_is_safer: the property is the share of successful requests",
        ),
        (CLASSIFIER | {"weights": CLASSIFIER["weights"] | {"revision": "main"}}, "should match pattern"),  # type: ignore[operator]
        (PHRASES | {"id": "my_list"}, "Input should be 'phrases'"),
        (PHRASES | {"list": ["no"]}, "Extra inputs are not permitted"),
        (CLASSIFIER | {"prompt": {"path": "prompt.txt"}}, "Field required"),
    ],
)
def test_what_a_judge_must_not_be(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JUDGE.validate_python(plain)


def test_two_judges_of_one_eval_have_two_names() -> None:
    with pytest.raises(ValidationError, match="names 'server' twice"):
        eval_with(API, API)


def test_the_examples_of_the_docs_are_read_once_their_pins_are_filled_in(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    eval_file = (package_root() / "evals" / "smoke_refusal.yaml").read_text(encoding="utf-8")
    found = []
    for example in examples:
        filled = example.replace("YOUR_COMMIT", f"'{'0' * 40}'")
        filled = re.sub(r"YOUR_(OTHER_)?SHA256", f"'{'0' * 64}'", filled)
        path = tmp_path / "example.yaml"
        path.write_text(eval_file + example, encoding="utf-8")
        if filled != example:
            with pytest.raises(InvalidFile, match="revision"):
                load_yaml(path, schema_of("evals"))
        path.write_text(eval_file + filled, encoding="utf-8")
        found += load_yaml(path, schema_of("evals")).second_judges
    assert [judge.kind for judge in found] == ["phrases", "classifier", "api"]
