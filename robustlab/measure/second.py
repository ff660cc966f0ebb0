"""Second judges at work: they read the completions of a measurement once all of them have been generated.

Completions wait in memory and go to a host beside this machine only where the run's audit says that they may. The
laboratory pays, whoever pays for the measurement. What comes of their opinions is the business of
``robustlab.measure.asr`` and ``robustlab.measure.agreements``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never
from urllib.parse import urlsplit

from robustlab.cost.meter import Meter
from robustlab.errors import CustodyError
from robustlab.measure.api_judge import ask, prepare
from robustlab.measure.classifier import Classifier, load_classifier, load_templates
from robustlab.measure.opinions import Opinion, Question
from robustlab.measure.phrases import read_phrases
from robustlab.models.endpoint import Endpoint, is_loopback
from robustlab.record.sending import Append, record_sending, record_sent
from robustlab.spec.base import content_hash
from robustlab.spec.endpoints import EndpointSpec
from robustlab.spec.judges import ApiJudge, ClassifierJudge, PhrasesJudge, SecondJudge

ON_THIS_MACHINE = "on this machine"


def _write_nowhere(record: dict[str, Any]) -> str:
    return ""


@dataclass(frozen=True)
class Panel:
    """The second judges of a run: loaded once, asked at every measurement.

    Attributes:
        append: Writes one record of the audit durably; what stays on this machine needs none.
        allowed: Hosts that completions may be sent to, with the reason, as that audit says.
        build_endpoint: Opens the door to a server.
    """

    append: Append = _write_nowhere
    allowed: Mapping[str, str] = field(default_factory=dict)
    build_endpoint: Callable[[EndpointSpec], Endpoint] = Endpoint
    _classifiers: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def ask(
        self, judges: Sequence[SecondJudge], questions: Sequence[Question], meter: Meter
    ) -> list[dict[str, Opinion]]:
        """Have every judge read the completions of one measurement.

        Args:
            judges: Who reads.
            questions: One a completion.
            meter: Its laboratory pays.

        Returns:
            For each completion, in order, the opinion of each judge by its id.

        Raises:
            BudgetSpent: If a cap of the laboratory does not allow for it.
            ConfigError: If a key, a prompt or a local folder is missing.
            DataError: If a file is not as pinned, or the hub does not give it.
            CustodyError: If completions may not be sent to a judge's host.
        """
        found: list[dict[str, Opinion]] = [{} for _ in questions]
        for judge in judges:
            with meter.phase("laboratory", "second_judge", judge=judge.id):
                opinions = self._ask_one(judge, questions, meter)
            for said, opinion in zip(found, opinions, strict=True):
                said[judge.id] = opinion
        return found

    def check(self, judges: Sequence[SecondJudge]) -> None:
        """Refuse judges that could not be asked, before anything is spent; nothing is loaded and nobody is asked.

        Args:
            judges: Who will read.

        Raises:
            ConfigError: If a key or a prompt is missing.
            DataError: If a prompt is not the pinned text.
            CustodyError: If completions may not be sent to a judge's host.
        """
        for judge in judges:
            match judge:
                case ApiJudge():
                    self._find_reason(judge)
                    self.build_endpoint(judge.endpoint)
                case ClassifierJudge():
                    load_templates(judge)
                case PhrasesJudge():
                    pass  # needs nothing
                case _:
                    assert_never(judge)

    def _ask_one(self, judge: SecondJudge, questions: Sequence[Question], meter: Meter) -> list[Opinion]:
        match judge:
            case ApiJudge():
                return self._send(judge, questions, meter)
            case ClassifierJudge():
                return self._find_classifier(judge).read(questions, meter)
            case PhrasesJudge():
                return read_phrases(questions)
            case _:
                assert_never(judge)

    def _send(self, judge: ApiJudge, questions: Sequence[Question], meter: Meter) -> list[Opinion]:
        why, host = self._find_reason(judge), find_host(judge)
        endpoint = self.build_endpoint(judge.endpoint)
        asked = prepare(judge, questions)
        record_sending(self.append, judge.id, host, completions=len(asked.messages), size=asked.size, why=why)
        answers = ask(judge, endpoint, asked, meter)
        record_sent(self.append, judge.id, host, completions=answers.completions, size=answers.size, why=why)
        return answers.opinions

    def _find_reason(self, judge: ApiJudge) -> str:
        host = find_host(judge)
        if is_loopback(judge.endpoint.base_url):
            return ON_THIS_MACHINE
        if host not in self.allowed:
            problem = f"would send completions to {host}, and nobody has said that they may leave this machine"
            raise CustodyError(f"judge {judge.id}", problem, f"add --send-completions {host} --reason TEXT to the run")
        return self.allowed[host]

    def _find_classifier(self, judge: ClassifierJudge) -> Classifier:
        key = content_hash(judge)
        if key not in self._classifiers:
            self._classifiers[key] = load_classifier(judge)
        return self._classifiers[key]


def find_host(judge: ApiJudge) -> str:
    """Host that a judge's server answers at, in lower case and without a port."""
    return urlsplit(judge.endpoint.base_url).hostname or ""
