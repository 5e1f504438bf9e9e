import pytest
import torch

from training.purification.answering import AnsweringModel


def pictures(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def test_a_question_is_answered_the_same_in_any_batch(answering):
    shown = pictures((60, 40), (40, 40))
    together = answering.next_token_log_probabilities(shown, ["what is this, and why?", "what?"])
    torch.testing.assert_close(together.exp().sum(1), torch.ones(2))
    alone = answering.next_token_log_probabilities(shown[1:], ["what?"])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


def test_picture_and_question_matter(answering):
    first, second = pictures((40, 40), (40, 40))
    ask = answering.next_token_log_probabilities
    assert not torch.equal(ask([first], ["what?"]), ask([second], ["what?"]))
    assert not torch.equal(ask([first], ["what?"]), ask([first], ["why?"]))


def test_answers_are_greedy_and_short(answering):
    shown = pictures((40, 40))
    first = answering.answer(shown, ["what?"], 3)
    assert first == answering.answer(shown, ["what?"], 3)
    token = answering.next_token_log_probabilities(shown, ["what?"]).argmax().item()
    assert answering.answer(shown, ["what?"], 1) == [answering.tokenizer.decode([token], skip_special_tokens=True)]


def test_the_seen_size_is_that_of_the_processor(answering):
    assert answering.seen_size(torch.zeros(3, 300, 150)) == (56, 28)


def test_letters_are_tokens(answering):
    assert answering.letter_tokens("AB") == [[answering.tokenizer.encode(letter)[0]] for letter in "AB"]
    with pytest.raises(ValueError, match="no token for the letter AB"):
        answering.letter_tokens(["AB"])


def test_another_model_is_refused_by_name(clip_folder, tmp_path):
    with pytest.raises(ValueError, match="is no model that answers questions about pictures"):
        AnsweringModel(str(clip_folder))
