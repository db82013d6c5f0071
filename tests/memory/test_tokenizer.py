"""Words: the documented rules, scripts beyond Latin, and English stems."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popoto.memory.stemmer import stem
from popoto.memory.tokenizer import DEFAULT, ENGLISH, STOP_WORDS, Tokenizer, tokenize


def test_words_are_cut_at_anything_but_letters_digits_and_underscores() -> None:
    assert tokenize("Retry-count: retry_count=1234, (timeouts)!") == [
        "retry",
        "count",
        "retry_count",
        "1234",
        "timeouts",
    ]


def test_case_short_words_and_stop_words_are_dropped() -> None:
    assert tokenize("THE Deploy of v2 was OK, and it FAILED in 42 s") == ["deploy", "failed"]
    assert tokenize("don't won't") == ["don", "won"]


def test_there_are_52_stop_words_none_shorter_than_a_word() -> None:
    assert len(STOP_WORDS) == 52
    assert min(map(len, STOP_WORDS)) == 3
    assert tokenize(" ".join(STOP_WORDS)) == []


def test_repeats_are_kept_only_on_demand_and_in_order() -> None:
    assert tokenize("red green red blue green") == ["red", "green", "blue"]
    assert tokenize("red green red", unique=False) == ["red", "green", "red"]


@pytest.mark.parametrize("nothing", [None, "", "   ", "?! -- ...", "a an it"])
def test_what_holds_no_word_gives_none(nothing: str | None) -> None:
    assert tokenize(nothing) == []


@pytest.mark.parametrize("given_value", [42, b"bytes", ["a", "list"], 0, []])
def test_what_is_no_text_is_refused_with_advice(given_value: object) -> None:
    with pytest.raises(TypeError, match="expected a text"):
        tokenize(given_value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("ＦＵＬＬ Ｗｉｄｔｈ １２３４", "full width 1234"),
        ("ﬁnance", "finance"),
        ("caf\u00e9", "cafe\u0301"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("co\u00adope\u00adrate", "cooperate"),
    ],
)
def test_spellings_of_one_word_are_one_word(one: str, other: str) -> None:
    assert tokenize(one) == tokenize(other) != []


def test_marks_belong_to_their_letters() -> None:
    assert tokenize("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert tokenize("می\u200cخواهم") == ["میخواهم"]


def test_scripts_without_spaces_become_pairs_of_characters() -> None:
    assert tokenize("東京都") == ["東京", "京都"]
    assert tokenize("東京にiPhone15を買う") == ["東京", "京に", "iphone15", "を買", "買う"]
    assert tokenize("猫") == ["猫"]
    assert set(tokenize("京都")) <= set(tokenize("東京都へ"))
    assert tokenize("ｶﾀｶﾅ") == tokenize("カタカナ") == ["カタ", "タカ", "カナ"]
    assert len(tokenize("สวัสดีครับ")) == 9


def test_short_words_are_kept_where_two_characters_are_a_word() -> None:
    assert tokenize("서울 가다 물") == ["서울", "가다", "물"]
    assert tokenize("יד אל") == ["יד", "אל"]
    assert tokenize("я да нет") == ["нет"]


def test_accents_are_kept_or_folded_as_asked() -> None:
    assert tokenize("Café naïve Øresund") == ["café", "naïve", "øresund"]
    folding = Tokenizer(fold_accents=True)
    assert folding("Café naïve Øresund Łódź") == ["cafe", "naive", "oresund", "lodz"]
    assert folding("नमस्ते が") == ["नमस्ते", "が"]  # their marks are no accents


def test_options_change_what_is_kept() -> None:
    assert Tokenizer(min_length=1, stop_words=frozenset())("It is a test") == ["it", "is", "a", "test"]
    assert ENGLISH("Running deployments failed twice") == ["run", "deploy", "fail", "twice"]
    assert ENGLISH("running runs run", unique=True) == ["run"]
    assert ENGLISH("retry_counts naïve v1beta2") == ["retry_counts", "naiv", "v1beta2"]


def test_emoji_and_control_characters_only_separate() -> None:
    assert tokenize("smile\U0001f600fire\x00water\U0001f468\u200d\U0001f469") == ["smile", "fire", "water"]


def test_emoji_are_words_of_their_own_where_asked_for() -> None:
    assert ENGLISH("party\U0001f389 time \u2764\ufe0f\U0001f44d\U0001f3fd") == [
        "parti",
        "\U0001f389",
        "time",
        "\u2764",
        "\U0001f44d",
    ]
    assert ENGLISH("\U0001f1f5\U0001f1f9") == ["\U0001f1f5\U0001f1f9"]  # a flag is two characters
    assert tokenize("\u2764\ufe0f") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("call get_user_id(user_id)", ["call", "get_user_id", "user_id"]),
        ("write to anna.smith@example.com", ["write", "anna", "smith", "exampl", "com"]),
        ("https://example.com/api/users?page=12345", ["https", "exampl", "com", "api", "user", "page", "12345"]),
        ("Привет, МИР!", ["привет", "мир"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("東京 สดี", ["東京", "สด", "ดี"]),
    ],
    ids=["identifier", "mail", "url", "cyrillic", "arabic", "unspaced"],
)
def test_what_is_no_english_prose_is_found_by_its_parts(text: str, words: list[str]) -> None:
    assert ENGLISH(text) == words


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_cut_the_same_way_whatever_its_case_or_composition(text: str) -> None:
    words = DEFAULT(text)
    assert DEFAULT(unicodedata.normalize("NFC", text)) == DEFAULT(unicodedata.normalize("NFD", text))
    assert all(word and not any(c.isspace() for c in word) for word in words)
    assert not set(words) & STOP_WORDS
    assert DEFAULT(text + " ") == words
    assert len(DEFAULT(text, unique=True)) == len(set(words))


STEMS = """
caresses caress | ponies poni | ties tie | cries cri | gaps gap | gas gas | this this | kiwis kiwi | us us
agreed agre | feed feed | plastered plaster | bled bled | motoring motor | sing sing | luxuriated luxuri
hopping hop | hoping hope | hoped hope | falling fall | hissing hiss | fizzed fizz | failing fail | filing file
running run | runner runner | runs run | cry cri | by by | say say | happy happi | happily happili | happiness happi
relational relat | conditional condit | rational ration | valency valenc | hesitancy hesit | digitizer digit
conformably conform | radically radic | differently differ | vilely vile | analogously analog | vietnamization vietnam
predication predic | operator oper | feudalism feudal | decisiveness decis | hopefulness hope | callousness callous
formality formal | sensitivity sensit | sensibility sensibl | triplicate triplic | formative format | formalize formal
electricity electr | electrical electr | hopeful hope | goodness good | revival reviv | allowance allow
inference infer | airliner airlin | adjustable adjust | defensible defens | irritant irrit | replacement replac
adjustment adjust | dependent depend | adoption adopt | communism communism | activate activ | effective effect
bowdlerize bowdler | probate probat | rate rate | cease ceas | controlling control | roll roll
generously generous | general general | generate generat | communicate communic | national nation | nationally nation
deployment deploy | deployed deploy | consistency consist | consolation consol | knackeries knackeri | knots knot
dying die | lying lie | skis ski | skies sky | news news | early earli | only onli | gently gentl | proceed proceed
yellow yellow | youth youth | enjoyed enjoy | playing play | biology biolog | geologist geolog | added add
"""


@pytest.mark.parametrize("pair", [p.split() for line in STEMS.split("\n") for p in line.split("|") if p.strip()])
def test_english_words_have_their_published_stem(pair: list[str]) -> None:
    word, expected = pair
    assert stem(word) == expected


@settings(max_examples=200, deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=12))
def test_a_stem_is_never_empty_and_hardly_longer_than_its_word(word: str) -> None:
    stemmed = stem(word)
    assert len(stemmed) <= len(word) + 1
    assert stemmed or not word.strip("'s")
    assert stemmed == stemmed.lower()
