"""Prompts in words: verbalized sampling, attributes, critique and rewrite, questions and answers; and rows whose turns two engines share."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from seedbed import estimate, relay
from seedbed import recipe as recipes
from seedbed.candidates import complete, read_candidates, tokens_of
from seedbed.data import load_sample
from seedbed.engines.toy import Toy
from seedbed.errors import ComponentError, RecipeError
from seedbed.generators.answered import Answered
from seedbed.generators.hard import Hard, responses
from seedbed.generators.refine import Refine
from seedbed.grow import step_names
from seedbed.lm.load import locate
from seedbed.parts import Component
from seedbed.prompting import begun
from seedbed.relay import Relay
from seedbed.run import run
from seedbed.task import Task
from seedbed.testing import check_generator, tiny_sample
from seedbed.types import Ask, Completion, Example, ModelRef, Prompt, Sample, Sampling, Teacher
from seedbed.weights import UNTUNED, untuned

ROOT = Path(__file__).resolve().parent.parent
TASKS = {
    "classification": Task("classification", ("text",), "label", ("music", "weather")),
    "pair": Task("pair", ("first", "second"), "label", ("yes", "no")),
    "qa": Task("qa", ("passage", "question"), "answer", ("yes", "no")),
    "data2text": Task("data2text", ("acts",), "text"),
    "text2text": Task("text2text", ("source",), "target"),
    "math": Task("math", ("question",), "answer"),
    "code": Task("code", ("description",), "code", tests="test_list"),
    "plain": Task("plain", ("text",)),
}


def sample_of(task: Task, n: int = 6) -> Sample:
    def value(name: str, i: int) -> Any:
        if name in task.structured:
            return [f"assert f({i}) == {i}"]
        return task.labels[i % 2] if task.has_labels and name == task.target else f"some {name} {i} #### {i}"

    rows = tuple(Example(f"e{i}", {name: value(name, i) for name in task.columns}) for i in range(n))
    return Sample(task, rows, rows[:2], ())


def teacher_of(generator: Any, sample: Sample, folder: Path) -> Teacher:
    generator.fit(sample, "toy", 0, folder)
    found: Teacher = generator.load(folder, sample.task, "toy")
    return found


def done(*texts: str) -> tuple[Completion, ...]:
    return tuple(Completion(text, len(text), True) for text in texts)


@pytest.mark.parametrize("generator", [Hard("verbalized"), Hard("attributes", attributes={"tone": ("calm", "angry")}), Refine(rounds=2), Answered()])
def test_they_conform(generator: Any) -> None:
    check_generator(generator, "toy")


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("template", ["zero-shot", "few-shot", "verbalized", "attributes"])
def test_a_template_speaks_in_the_tasks_own_words(kind: str, template: str, tmp_path: Path) -> None:
    sample = sample_of(TASKS[kind])
    teacher = teacher_of(Hard(template, attributes={"tone": ("calm",)} if template == "attributes" else None), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    prompt = teacher.prompt(row)
    assert prompt
    given = sample.task.prefix(row.given).strip()
    assert given in prompt.text
    if template != "few-shot":
        assert ("worked answer" in prompt.text) == (kind == "math")
        assert all(label in prompt.text for label in sample.task.labels)
    if template == "zero-shot":
        assert (f"- {sample.task.mark(sample.task.columns[-1])[:-1]} (" in prompt.text) == (kind != "plain")
    else:
        shown = [e for e in sample.fit if sample.task.render(e.fields) in prompt.text]
        assert len(shown) == 5


def test_responses_are_read_with_what_they_say_of_themselves() -> None:
    whole = "<response>\n<probability>0.25</probability>\n<text>\nLabel: a\nText: b\n</text>\n</response>"
    percent = "<response><text>t</text><probability> 12% </probability></response>"
    assert responses(f"Here they are:\n{whole}\n{percent}") == [("Label: a\nText: b", 0.25, ""), ("t", 0.12, "")]
    assert responses("no form at all") == [("no form at all", None, "no response")]
    assert responses("<response><text>t</text></response>") == [("t", None, "response without probability")]
    assert responses("<response><probability>7</probability><text>t</text></response>") == [("t", None, "response without probability")]
    assert responses("<response><probability>.5</probability></response>")[0][1:] == (0.5, "response without text")
    assert [problem for *_, problem in responses(whole + "<response><probability>0.1</probability><text>cut sho")] == ["", "response not closed"]


def test_a_verbalized_completion_is_several_candidates_and_what_does_not_parse_is_counted(tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Hard("verbalized", k=3), sample, tmp_path)
    row = list(teacher.rows(sample, 8, 0))[7]
    prompt = teacher.prompt(row)
    assert prompt and "Write 3 more" in prompt.text and prompt.stop == ""
    said = [("0.5", "Label: music\nText: play"), ("0.2", "Label: jazz\nText: x"), ("", "Label: music\nText: y")]
    text = "".join(f"<response><probability>{p}</probability><text>{t}</text></response>" for p, t in said)
    found = teacher.read(replace(row, turns=done(text)))
    assert [c.id for c in found] == ["c0000007.0", "c0000007.1", "c0000007.2"]
    assert [c.problem for c in found] == ["", "unknown label", "response without probability"]
    assert [c.fields for c in found] == [{"label": "music", "text": "play"}, None, None]
    assert [c.provenance["probability"] for c in found] == [0.5, 0.2, None]
    cut = teacher.read(replace(row, turns=(Completion(text + "<response>", 9, False),)))
    assert [c.finished for c in cut] == [True, True, True, False]


def test_what_is_given_stands_once_in_each_response(tmp_path: Path) -> None:
    sample = sample_of(TASKS["pair"])
    teacher = teacher_of(Hard("verbalized"), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    given = sample.task.prefix(row.given)
    form = "<response><probability>0.1</probability><text>{}Second: s\nLabel: yes</text></response>"
    found = teacher.read(replace(row, turns=done(form.format("") + form.format(given))))
    assert [c.fields for c in found] == [{"first": row.given["first"], "second": "s", "label": "yes"}] * 2


def test_attributes_are_drawn_for_each_row_and_kept(tmp_path: Path) -> None:
    sample = tiny_sample()
    values = {"length": ("short", "long"), "tone": ("angry", "calm", "curious")}
    teacher = teacher_of(Hard("attributes", attributes=values), sample, tmp_path)
    drawn = []
    for row in teacher.rows(sample, 300, 5):
        prompt = teacher.prompt(row)
        kept = teacher.read(replace(row, turns=done("x")))[0].provenance["attributes"]
        assert prompt and all(f"- {name}: {value}\n" in prompt.text for name, value in kept.items())
        drawn.append(tuple(kept.values()))
    counts = Counter(drawn)
    assert set(counts) == {(a, b) for a in values["length"] for b in values["tone"]}  # drawn apart, in all ways
    assert min(counts.values()) > 25


def test_settings_that_do_not_fit_each_other_are_named() -> None:
    base = {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "classification", "inputs": ["message"], "target": "queue"}}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"kind": "hard", "template": "attributes"}, "needs them: attributes"),
        ({"kind": "hard", "attributes": {"a": ["b"]}}, "says nothing of attributes"),
        ({"kind": "hard", "template": "attributes", "attributes": {"a": []}}, "at least 1"),
        ({"kind": "refine", "draft": {"kind": "hard", "template": "verbalized"}}, "one record a row"),
        ({"kind": "refine", "draft": {"kind": "soft", "cover": True}}, "draft cannot have cover = true"),
        ({"kind": "answered", "questions": {"kind": "soft", "cover": True}}, "questions cannot have cover = true"),
        ({"kind": "refine", "draft": {"kind": "finetune"}}, "loads an adapter"),
        ({"kind": "refine", "model": "x"}, "is a name for engine"),
        ({"kind": "refine", "draft": {"kind": "nothing"}}, "is unknown"),
        ({"kind": "answered", "by": "teacher", "questions": {"kind": "soft"}}, "which answer too"),
        ({"kind": "answered", "questions": {"kind": "finetune", "order": "label-first"}, "by": "teacher"}, "begin with the answer"),
        ({"kind": "answered", "n": 0}, "greater than or equal to 1"),
    ]
    for generator, words in wrong:
        with pytest.raises(RecipeError, match=words):
            recipes.build(base | {"engine": {"kind": "toy"}, "generator": generator}, ROOT)


@pytest.mark.parametrize(
    "generator",
    [
        {"kind": "hard", "template": "attributes", "attributes": {"length": ["short", "long"], "a tone": ["angry"]}},
        {
            "kind": "refine",
            "draft": {"kind": "soft", "prompt": "nsp"},
            "engine": {"kind": "openai", "base_url": "http://localhost:1/v1"},
            "model": "m",
        },
        {"kind": "answered", "questions": {"kind": "refine", "draft": {"kind": "hard", "shots": 2}}, "n": 3},
    ],
)
def test_nested_parts_read_back_to_themselves_and_count(generator: dict[str, Any]) -> None:
    base = {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "classification", "inputs": ["message"], "target": "queue"}}
    made = recipes.build(base | {"engine": {"kind": "toy"}, "generator": generator}, ROOT)
    again = recipes.build(tomllib.loads(made.to_toml()), ROOT)
    assert again == made and again.to_toml() == made.to_toml() and again.generator.facts() == made.generator.facts()
    inner = {"hard": "generator.attributes.length=['short']", "refine": "generator.draft.prompt=mc", "answered": "generator.questions.draft.shots=3"}
    other = recipes.build(base | {"engine": {"kind": "toy"}, "generator": generator}, ROOT, [inner[generator["kind"]]])
    assert other.generator.facts() != made.generator.facts()


def test_a_draft_is_criticised_and_written_again(tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Refine(rounds=2, shots=3), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    texts = ["Label: music\nText: draft one", "too short", "Label: music\nText: second text", "still short", "Label: weather\nText: third text"]
    seen = []
    for i in range(5):
        prompt = teacher.prompt(replace(row, turns=done(*texts[:i])))
        assert prompt
        seen.append(prompt)
    assert teacher.prompt(replace(row, turns=done(*texts))) is None
    assert "draft one" in seen[1].text and "too short" not in seen[1].text
    assert "draft one" in seen[2].text and "A critic says: too short" in seen[2].text
    assert "second text" in seen[3].text and "draft one" not in seen[3].text
    assert "second text" in seen[4].text and "A critic says: still short" in seen[4].text
    assert len({p.seed for p in seen}) == 5
    found = teacher.read(replace(row, turns=done(*texts)))[0]
    assert found.fields == {"label": "weather", "text": "third text"}
    assert found.provenance["draft"] == texts[0] and found.provenance["critiques"] == ["too short", "still short"]
    assert (found.provenance["generator"], found.provenance["made_by"], len(found.provenance["sources"])) == ("refine", "hard", 3)


def test_a_critic_with_nothing_to_say_ends_the_rounds(tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Refine(rounds=3), sample, tmp_path)
    row = replace(next(teacher.rows(sample, 1, 0)), turns=done("Label: music\nText: good", "Nothing."))
    assert teacher.prompt(row) is None
    assert teacher.read(row)[0].fields == {"label": "music", "text": "good"}
    later = replace(row, turns=done("Label: music\nText: good", "shorter", "Label: music\nText: go", "nothing"))
    assert teacher.prompt(later) is None and teacher.read(later)[0].fields == {"label": "music", "text": "go"}
    assert teacher.prompt(replace(row, turns=done("Label: music\nText: good", "nothing rhymes"))) is not None


def math(tmp_path: Path, **settings: Any) -> tuple[Sample, Teacher]:
    sample = sample_of(TASKS["math"])
    return sample, teacher_of(Answered(**settings), sample, tmp_path)


def test_the_question_ends_where_its_answer_would_begin_and_is_answered_n_times(tmp_path: Path) -> None:
    sample, teacher = math(tmp_path, n=3, shots=2)
    row = next(teacher.rows(sample, 1, 0))
    first = teacher.prompt(row)
    assert first and first.stop == "\nAnswer:"
    seen = []
    for i in range(3):
        prompt = teacher.prompt(replace(row, turns=done("Question: how many", *["x #### 1"] * i)))
        assert prompt and prompt.text.endswith("---\nQuestion: how many\n") and prompt.stop == "\n---"
        assert prompt.text.count("some answer") == 2
        seen.append((prompt.text, prompt.seed))
    assert len(set(seen)) == 3  # examples and seed are drawn for each answer
    assert teacher.prompt(replace(row, turns=done("Question: how many", *["x #### 1"] * 3))) is None


def test_the_majority_of_final_numbers_is_kept_with_its_share(tmp_path: Path) -> None:
    sample, teacher = math(tmp_path, n=5)
    row = next(teacher.rows(sample, 1, 0))
    answers = ["Answer: b #### 7", "Answer: a #### 1,000", "Answer: or 1000.0", "no form at all 3", "Answer: c #### 8"]
    found = teacher.read(replace(row, turns=done("Question: how many", *answers)))[0]
    assert found.fields == {"question": "how many", "answer": "a #### 1,000"}
    assert found.text == "Question: how many\nAnswer: a #### 1,000"
    assert found.provenance["confidence"] == {"answers": 5, "agreeing": 2}
    cut = (*done("Question: how many", *answers[:2]), Completion("Answer: or 1000.0", 9, False), *done("Answer: 8", "Answer: 9"))
    assert teacher.read(replace(row, turns=cut))[0].provenance["confidence"] == {"answers": 5, "agreeing": 1}
    none = teacher.read(replace(row, turns=done("Question: how many", *["Answer: no number"] * 5)))[0]
    assert (none.fields, none.problem, none.provenance["confidence"]) == (None, "no answer", {"answers": 5, "agreeing": 0})


def test_a_text_that_is_no_question_is_not_answered(tmp_path: Path) -> None:
    sample, teacher = math(tmp_path)
    row = replace(next(teacher.rows(sample, 1, 0)), turns=done("nonsense"))
    assert teacher.prompt(row) is None
    assert [(c.fields, c.problem) for c in teacher.read(row)] == [(None, "question: section missing")]
    ran_on = replace(row, turns=done("Question: q\n---\nQuestion: r"))
    prompt = teacher.prompt(ran_on)
    assert prompt and prompt.text.endswith("Question: q\n")


def test_programs_agree_but_for_their_layout_and_the_tests_belong_to_the_question(tmp_path: Path) -> None:
    sample = sample_of(TASKS["code"])
    teacher = teacher_of(Answered(n=3, shots=1), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    question = 'Description: double it\nTest list: ["assert f(1) == 2"]'
    prompt = teacher.prompt(replace(row, turns=done(question)))
    assert prompt and prompt.text.endswith(question + "\n")
    answers = ["Code: def f(x):\n  return 3", "Code: def f(x):\n    return 2 * x", "Code: def f(x): return 2*x  # twice"]
    found = teacher.read(replace(row, turns=done(question, *answers)))[0]
    assert found.fields == {"description": "double it", "test_list": ["assert f(1) == 2"], "code": "def f(x):\n    return 2 * x"}
    assert found.provenance["confidence"] == {"answers": 3, "agreeing": 2}
    broken = teacher.read(replace(row, turns=done(question, *["Code: def f(x) return"] * 3)))[0]
    assert broken.problem == "no answer"


def test_labels_vote_and_a_label_that_is_none_has_no_vote(tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Answered(n=4), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    asked = teacher.prompt(row)
    assert asked and asked.stop == "\nLabel:"
    turns = done("Text: rain on the hills", "Label: jazz", "Label: weather", "Label: jazz", "Label: jazz")
    found = teacher.read(replace(row, turns=turns))[0]
    assert found.fields == {"text": "rain on the hills", "label": "weather"}
    assert found.provenance["confidence"] == {"answers": 4, "agreeing": 1}


def test_an_answered_task_has_a_target_to_ask_for(tmp_path: Path) -> None:
    for task in (TASKS["plain"], replace(TASKS["classification"], given=("label",))):
        with pytest.raises(ComponentError, match="asks for the target"):
            Answered().fit(sample_of(task), "toy", 0, tmp_path)


@pytest.mark.parametrize("by", ["words", "teacher"])
def test_questions_are_made_and_answered_by_a_real_engine(by: Any, tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Answered(n=3, by=by), sample, tmp_path)
    (tmp_path / "out").mkdir()
    complete(tmp_path / "out", teacher, Toy().open(teacher.model), sample, 30, 0, Sampling(0.7, 1.0, 200))
    found = read_candidates(tmp_path / "out", 30)
    whole = [c for c in found if c.fields]
    assert len(whole) > 15
    assert all(1 <= c.provenance["confidence"]["agreeing"] <= 3 for c in whole)
    assert len({c.provenance["confidence"]["agreeing"] for c in whole}) > 1


def test_a_drafts_turns_end_where_its_teacher_has_no_prompt(tmp_path: Path) -> None:
    sample = tiny_sample()
    teacher = teacher_of(Hard(), sample, tmp_path)
    row = next(teacher.rows(sample, 1, 0))
    assert begun(teacher, row) is None
    turns = done("a", "b", "c")
    assert begun(teacher, replace(row, turns=turns)) == (replace(row, turns=turns[:1]), turns[1:])


OTHERS = [None, Ask(Toy(order=2), "b"), Ask(Toy(order=3), "c")]


def test_each_prompt_of_a_relay_is_completed_once_by_the_engine_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BLOCK", 7)
    rng = random.Random(1)
    prompts = [(i, Prompt(f"text number {i} is here\n---\n", i, stop="\n---", ask=rng.choice(OTHERS))) for i in range(200)]
    how, read, answered, most = Sampling(1.0, 1.0, 20), 0, 0, 0

    def stream() -> Iterator[tuple[int, Prompt]]:
        nonlocal read, most
        for read, pair in enumerate(prompts, 1):
            most = max(most, read - answered)
            yield pair

    session = Relay(Toy().open(ModelRef("a")))
    got = {}
    for key, completion in session.complete(stream(), how):
        assert key not in got
        got[key], answered = completion, answered + 1
    engines = {ask: (ask.engine if ask else Toy()).open(ModelRef("x")) for ask in OTHERS}  # type: ignore[attr-defined]
    assert got == {key: next(engines[p.ask].complete([(key, p)], how))[1] for key, p in prompts}
    assert most <= 3 * 7  # what waits is bounded
    assert [other["model"] for other in session.describe()["others"]] == [ask.model for ask in session.others]
    assert list(session.complete(iter([]), how)) == []


def test_prompts_that_name_nobody_pass_a_relay_as_they_come() -> None:
    prompts = [(i, Prompt(f"text {i}", i)) for i in range(20)]
    plain = Toy().open(ModelRef("a"))
    session = Relay(plain)
    assert list(session.complete(iter(prompts), Sampling())) == list(plain.complete(iter(prompts), Sampling()))
    assert session.describe() == plain.describe() and session.others == {}


def test_drafts_here_and_later_turns_by_another_engine(tmp_path: Path) -> None:
    """Two toys of other settings: what each row holds is what its engine says to its prompt; a budget and a stop change nothing."""
    sample, how = tiny_sample(), Sampling(0.8, 1.0, 120)
    engine = Component("toy", "engine:toy:1:", Toy(order=2))
    teacher = teacher_of(Refine(engine=engine, model="other"), sample, tmp_path)
    (tmp_path / "out").mkdir()
    session = Relay(Toy().open(ModelRef("toy")))
    complete(tmp_path / "out", teacher, session, sample, 20, 0, how)
    here, there = Toy().open(ModelRef("toy")), Toy(order=2).open(ModelRef("other"))
    made = {}
    for row in teacher.rows(sample, 20, 0):
        while (prompt := teacher.prompt(row)) is not None:
            assert (prompt.ask is None) == (not row.turns)
            turn = next((there if prompt.ask else here).complete([(0, prompt)], how))[1]
            row = replace(row, turns=(*row.turns, turn))
        made[row.index] = teacher.read(row)[0]
    found = read_candidates(tmp_path / "out", 20)
    assert [(c.id, c.text, c.problem) for c in found] == [(c.id, c.text, c.problem) for c in made.values()]
    assert {c.provenance["refined_by"] for c in found} == {"other"}
    assert session.describe()["others"][0]["order"] == 2


@pytest.mark.slow
def test_an_estimate_counts_every_turn_of_a_row(tmp_path: Path) -> None:
    """The tokens of 32 tried rows, in proportion, beside those of a run of 100."""
    base = {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "classification", "inputs": ["message"], "target": "queue"}}
    made = recipes.build(base | {"engine": {"kind": "toy"}, "generator": {"kind": "answered", "n": 4}, "generate": {"count": 100}}, ROOT)
    sample = load_sample(made.sample, made.task, made.seed, ROOT)
    for name in ("fitted", "work", "run"):
        (tmp_path / name).mkdir()
    teacher = teacher_of(made.generator.settings, sample, tmp_path / "fitted")
    cost = estimate._generating(made, sample, tmp_path / "fitted", None, tmp_path / "work")
    complete(tmp_path / "run", teacher, Toy().open(teacher.model), sample, 100, 0, made.generate.sampling)
    assert cost.tokens == pytest.approx(tokens_of(tmp_path / "run"), rel=0.3)


def test_settings_that_the_fit_does_not_read_fit_nothing_anew() -> None:
    def names(**generator: Any) -> tuple[str, str]:
        base = {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "plain", "inputs": ["message"]}}
        found = step_names(recipes.build(base | {"generator": generator}, ROOT), tiny_sample())
        return found["teacher"], found["candidates"]

    elsewhere = {"engine": {"kind": "toy"}, "model": "another"}
    for plain, inner, others in (
        ({"kind": "refine"}, "draft", ({"rounds": 2}, elsewhere)),
        ({"kind": "answered"}, "questions", ({"n": 9}, elsewhere)),
    ):
        drafts, mixed, smaller = ({inner: {"kind": "soft", **settings}} for settings in ({}, {"contexts": "mix"}, {"tokens": 3}))
        for more in (*others, mixed):
            old, new = names(**plain | drafts), names(**plain | drafts | more)
            assert old[0] == new[0] and old[1] != new[1], more
        assert names(**plain | drafts)[0] not in (names(**plain)[0], names(**plain | smaller)[0])
    answering = {"kind": "answered", "questions": {"kind": "hard"}}
    assert names(**answering)[0] == names(**answering, by="teacher")[0]


@pytest.mark.slow
def test_several_candidates_a_row_go_through_a_whole_run(tmp_path: Path) -> None:
    """The toy engine learns the form of responses from the template itself, which names its labels and texts."""
    form = "{% for example in examples %}<response><probability>0.{{ loop.index }}</probability><text>{{ example }}</text></response>\n{% endfor %}"
    (tmp_path / "mine.jinja").write_text(form + "{{ k }}")
    settings = {
        "name": "several",
        "seed": 3,
        "sample": {"path": str(ROOT / "examples/helpdesk.csv"), "rows": 60},
        "task": {"kind": "classification", "inputs": ["message"], "target": "queue"},
        "model": {"name": "toy"},
        "engine": {"kind": "toy", "order": 6},
        "generator": {"kind": "hard", "template": "mine.jinja"},
        "generate": {"count": 40, "max_tokens": 900, "temperature": 0.7},
        "annotator": [{"kind": "classifier"}],
        "filter": [{"kind": "form", "slack": 9.0}, {"kind": "dedup"}],
        "metric": [{"kind": "memorisation"}],
        "gain": {"seeds": 1, "volumes": [0.5]},
    }
    made = run(recipes.build(settings, tmp_path), tmp_path / "out")
    counts = made.scores["counts"]
    assert counts["candidates"] > 80  # of 40 rows
    kept, dropped, said = (
        [json.loads(line) for line in next(made.folder.glob(pattern)).read_text().splitlines()]
        for pattern in ("kept-*/kept.jsonl", "kept-*/dropped.jsonl", "annotations-*/annotations.jsonl")
    )
    ids = [c["id"] for c in (*kept, *dropped)]
    assert len(set(ids)) == len(ids) == counts["candidates"] and {row["id"] for row in said} == set(ids)
    assert len({c["index"] for c in kept}) < len(kept)
    table = pq.read_table(next((made.folder / "dataset/data").glob("*.parquet"))).to_pylist()
    assert [r["provenance"]["candidate"] for r in table] == [c["id"] for c in kept]
    by_id = {row["id"]: row["classifier"] for row in said}
    assert all(c["annotations"]["classifier"] == by_id[c["id"]] for c in kept)
    assert all(0 < c["provenance"]["probability"] < 1 for c in kept)


def test_numbers_of_instructions_to_a_base_model_are_marked(tmp_path: Path) -> None:
    """Of the model's files only its tokenizer is read: here there are no weights."""

    def note(generator: dict[str, Any], engine: str = "local", model: str = "seedling") -> str:
        base = {"sample": {"path": "examples/helpdesk.csv"}, "task": {"kind": "classification", "inputs": ["message"], "target": "queue"}}
        return untuned(recipes.build(base | {"generator": generator, "engine": {"kind": engine}, "model": {"name": model}}, ROOT))

    assert note({"kind": "hard", "template": "verbalized"}) == note({"kind": "refine"}) == note({"kind": "refine"}, "vllm") == UNTUNED
    for name, template in (("base", None), ("tuned", "{{ messages }}")):
        tokenizer = AutoTokenizer.from_pretrained(locate("seedling"))
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path / name)
        shutil.copy(Path(locate("seedling")) / "config.json", tmp_path / name)
        for engine in ("local", "vllm"):
            assert note({"kind": "refine"}, engine, str(tmp_path / name)) == ("" if template else UNTUNED)
    elsewhere = {"kind": "refine", "engine": {"kind": "openai", "base_url": "http://localhost:1/v1"}, "model": "tuned"}
    assert note({"kind": "hard"}) == note({"kind": "soft"}) == note({"kind": "refine"}, "toy") == note(elsewhere) == ""
