"""Language models beyond equal answers: streams, settings, bounds, and what is refused."""

import json
import threading
from itertools import zip_longest

import numpy as np
import pytest

from podium.resources.errors import InvalidInput as Refused
from podium_runtime.errors import DeadlineExceeded, InvalidInput
from podium_runtime.flavors import Stoppable, Streaming
from podium_runtime.signature import InputCheck
from runtime.tests.replica import Version, running
from tests.flavors.cases import texts
from tests.flavors.language import LABELS, SENTENCES
from tests.flavors.pushing import pushed


@pytest.fixture
def generation(made, loaded):
    return loaded(made("transformers_generation"))


def checked(model, **inputs):
    return InputCheck(model.infer_signature(), model.columns).check_inputs(inputs)[0]


def test_a_stream_is_the_answer_in_pieces(generation):
    assert isinstance(generation, Streaming)
    for sentence in SENTENCES:
        inputs = checked(generation, text=texts(sentence), max_new_tokens=np.array([20]))
        whole = generation.predict(inputs, None)["generated_text"][0]
        pieces = [piece["generated_text"][0] for piece in generation.predict_stream(inputs)]
        assert len(pieces) > 1
        assert "".join(pieces).split() == whole.split()


def test_a_closed_stream_ends_the_generation(generation):
    stream = generation.predict_stream(checked(generation, text=texts("rain"), max_new_tokens=np.array([60])))
    next(stream)
    # Only the generation's own: the frameworks start and end threads of theirs when they like.
    assert "generate" in {thread.name for thread in threading.enumerate()}
    stream.close()
    assert "generate" not in {thread.name for thread in threading.enumerate()}


def test_a_stream_generates_only_while_somebody_waits(generation, monkeypatch):
    made = []
    forward = generation._model.forward
    monkeypatch.setattr(generation._model, "forward", lambda *a, **k: made.append(1) or forward(*a, **k))
    stream = generation.predict_stream(checked(generation, text=texts("rain"), max_new_tokens=np.array([40])))
    next(stream)
    # Another call runs to its end in between, and the stream has not gone on meanwhile.
    early = len(made)
    generation.predict(checked(generation, text=texts("rain"), max_new_tokens=np.array([30])), None)
    assert len(made) == early + 30
    assert early < 10
    rest = list(stream)
    assert len(rest) > 1
    assert len(made) == 30 + 40


def test_streams_side_by_side_draw_as_each_would_alone(generation):
    import torch

    def stream(seed):
        settings = {
            "temperature": np.array([8.0]),
            "seed": np.array([seed]),
            "max_new_tokens": np.array([20]),
        }
        pieces = generation.predict_stream(checked(generation, text=texts("rain"), **settings))
        return (piece["generated_text"][0] for piece in pieces)

    alone = [list(stream(1)), list(stream(2))]
    assert alone[0] != alone[1]
    before = torch.get_rng_state()
    side_by_side = [[], []]
    for pieces in zip_longest(stream(1), stream(2)):
        for seen, piece in zip(side_by_side, pieces, strict=True):
            seen.extend([] if piece is None else [piece])
    assert side_by_side == alone
    # A seed is one request's, and nobody else's numbers can be told from it.
    generation.predict(
        checked(generation, text=texts("rain"), seed=np.array([1]), temperature=np.array([8.0])), None
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_without_whole_words_still_has_events(generation, monkeypatch):
    words = [
        token for token in range(len(generation._tokenizer)) if token != generation._tokenizer.unk_token_id
    ]
    monkeypatch.setattr(generation._model.generation_config, "suppress_tokens", words)
    stream = generation.predict_stream(checked(generation, text=texts("rain"), max_new_tokens=np.array([50])))
    assert [piece["generated_text"][0] for piece in stream] == [""] * 3


def test_a_generation_ends_when_nobody_waits(generation):
    assert isinstance(generation, Stoppable)
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) > 5

    inputs = checked(generation, text=texts("rain", "rain"), max_new_tokens=np.array([60]))
    with pytest.raises(DeadlineExceeded):
        generation.predict_until(inputs, None, stopped)
    assert len(asked) == 6


def test_one_long_request_does_not_cost_the_replica_its_life(made, tmp_path):
    case = made("transformers_generation")
    flavor = {"name": "transformers", "entry": "", "options": {"task": "text-generation"}}
    settings = {"requestTimeoutSeconds": 1, "watchdogSeconds": 10}
    with running(Version(tmp_path, flavor, case.files, settings=settings).write()) as replica:

        def generate(prompts):
            text = {"name": "text", "datatype": "BYTES", "shape": [prompts], "data": ["rain"] * prompts}
            most = {"name": "max_new_tokens", "datatype": "INT64", "shape": [1], "data": [60]}
            return replica.infer({"inputs": [text, most]}).status

        # Minutes of work, for which the client waits a second and the watchdog ten.
        assert generate(3000) == 504
        assert generate(1) == 200
        assert replica.process.poll() is None


def test_a_seed_makes_drawn_text_repeatable(generation):
    def draw(seed):
        settings = {
            "temperature": np.array([8.0]),
            "seed": np.array([seed]),
            "max_new_tokens": np.array([30]),
        }
        return generation.predict(checked(generation, text=texts("rain"), **settings), None)

    assert draw(1)["generated_text"].tolist() == draw(1)["generated_text"].tolist()
    assert len({draw(seed)["generated_text"][0] for seed in range(5)}) > 1


def test_what_cannot_be_generated_names_its_input(generation):
    long = texts("rain " * 64)
    with pytest.raises(InvalidInput, match="at most 63 tokens") as error:
        generation.predict(checked(generation, text=long), None)
    assert error.value.field == "inputs[0].data[0]"
    with pytest.raises(InvalidInput, match="temperature"):
        generation.predict(checked(generation, text=texts("rain"), temperature=np.array([0.0])), None)
    with pytest.raises(InvalidInput, match="one prompt"):
        next(generation.predict_stream(checked(generation, text=texts("rain", "a"))))
    # The window holds 64: what is asked for beyond it is cut.
    inputs = checked(generation, text=texts("rain " * 60), max_new_tokens=np.array([500]))
    assert len(generation.predict(inputs, None)["generated_text"][0].split()) <= 4


def test_what_was_learned_is_served(made, loaded, generation):
    model = loaded(made("transformers_classification"))
    about = texts("the meeting moved", "a cat on the wall", "rain")
    assert model.predict({"text": about}, None)["label"].tolist() == list(LABELS)
    inputs = checked(generation, text=texts(SENTENCES[0]), max_new_tokens=np.array([8]))
    assert generation.predict(inputs, None)["generated_text"].tolist() == [SENTENCES[1]]


def test_long_texts_are_cut_and_null_is_refused(made, loaded):
    model = loaded(made("transformers_classification"))
    many = texts("rain " * 500, "rain " * 64)
    outputs = model.predict({"text": many}, None)
    assert np.abs(outputs["scores"][0] - outputs["scores"][1]).max() <= 1e-6
    with pytest.raises(InvalidInput, match="null"):
        model.predict({"text": np.array([None], dtype=object)}, None)


@pytest.mark.parametrize("name", ["transformers_embeddings", "sentence_transformers"])
def test_many_texts_go_in_several_calls(made, loaded, name):
    model = loaded(made(name))
    outputs = model.predict({"text": texts(*SENTENCES * 40)}, None)["embedding"]
    assert outputs.shape[0] == 160
    assert np.abs(outputs[:4] - outputs[-4:]).max() <= 2e-6


def test_a_folder_tells_task_and_versions(made, tmp_path):
    import transformers

    case = made("transformers_classification")
    draft = pushed(tmp_path, case.files)
    assert (draft.flavor.name, draft.flavor.options) == ("transformers", {"task": "text-classification"})
    assert draft.requirements == ("torch==2.13.0", f"transformers=={transformers.__version__}")
    config = json.loads(case.files["config.json"])

    def push(**changes):
        files = {**case.files, "config.json": json.dumps({**config, **changes}).encode()}
        return pushed(tmp_path, files)

    old = push(transformers_version="4.8.2")
    assert any("4.8.2, and at least 4.56.0 is needed" in note for note in old.notes)
    with pytest.raises(Refused, match="never run") as error:
        push(auto_map={"AutoModel": "code.Model"})
    assert error.value.issues[0].field == "config.json: auto_map"
    with pytest.raises(Refused, match=r"no known task; known: \*ForSequenceClassification"):
        push(architectures=["BertForMaskedLM"])
    without = {name: content for name, content in case.files.items() if not name.startswith("tokenizer")}
    with pytest.raises(Refused, match="no tokenizer"):
        pushed(tmp_path, without)
    pickled = {name.replace("model.safetensors", "pytorch_model.bin"): c for name, c in case.files.items()}
    with pytest.raises(Refused, match="pickled are not loaded"):
        pushed(tmp_path, pickled)


def test_a_sentence_folder_tells_its_versions(made, tmp_path):
    case = made("sentence_transformers")
    draft = pushed(tmp_path, case.files)
    assert draft.flavor.name == "sentence-transformers"
    assert draft.requirements == ("sentence-transformers==6.2.0", "torch==2.13.0", "transformers==5.23.0")
    assert any("at least 5.0.0 is needed" in note for note in draft.notes)
    modules = json.loads(case.files["modules.json"])
    modules[0]["type"] = "custom.Module"
    with pytest.raises(Refused, match="expected a class of sentence-transformers"):
        pushed(tmp_path, {**case.files, "modules.json": json.dumps(modules).encode()})
