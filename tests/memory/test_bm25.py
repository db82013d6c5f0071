"""BM25Field: the index is always exact, and a search equals scoring everything."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from popoto import Field, IndexedField, KeyField, Model, SortedField, get_redis
from popoto.exceptions import ModelException, QueryException
from popoto.memory import bm25
from popoto.memory.bm25 import BM25Field, scores_steps, search_steps
from popoto.memory.tokenizer import DEFAULT, ENGLISH
from popoto.orm.drivers import drive, run
from popoto.orm.keys import model_keys

P = "$BM25:WordedNote:words"


class WordedNote(Model):
    name = KeyField()
    who = IndexedField()
    rank = SortedField(default=0.0)
    text = Field(max_length=None)
    words = BM25Field("text")


class Peculiar(Model):
    name = KeyField()
    text = Field(max_length=None)
    words = BM25Field("text", tokenizer=str.split, k1=0.9, b=0.3)


def brute_force(
    texts: dict[str, str | None], query: str, cut: Any = ENGLISH, k1: float = 1.2, b: float = 0.75
) -> list[tuple[str, float]]:
    """Score every document as the formula says; best first, equal scores by descending name."""
    documents = {name: cut(text or "") for name, text in texts.items()}
    documents = {name: terms for name, terms in documents.items() if terms}
    if not documents:
        return []
    n = len(documents)
    mean = sum(map(len, documents.values())) / n
    scores: dict[str, float] = {}
    for term in dict.fromkeys(cut(query)):
        df = sum(term in terms for terms in documents.values())
        idf = math.log((n - df + 0.5) / (df + 0.5) + 1)
        for name, terms in documents.items():
            tf = terms.count(term)
            if tf:
                part = idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(terms) / mean))
                scores[name] = scores.get(name, 0) + part
    return sorted(scores.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)


def stored_index(client: redis.Redis, base: str = P) -> dict[str, Any]:
    """Return every key of an index with its content."""
    found: dict[str, Any] = {}
    for key in client.scan_iter(match=base.replace("$", "\\$") + ":*", count=1000):
        name = key.decode()[len(base) + 1 :]
        if client.type(key) == b"zset":
            found[name] = {member.decode(): score for member, score in client.zrange(key, 0, -1, withscores=True)}
        else:
            found[name] = client.get(key).decode()
    return found


def recounted_index(texts: dict[str, str | None], cut: Any = ENGLISH) -> dict[str, Any]:
    """Return what the index must hold for these documents: nothing more, nothing less."""
    expected: dict[str, Any] = {}
    documents = {name: cut(text or "") for name, text in texts.items()}
    documents = {name: terms for name, terms in documents.items() if terms}
    for name, terms in documents.items():
        for term, count in Counter(terms).items():
            expected.setdefault(f"inv:{term}", {})[name] = count + 1 - min(len(terms), 4095) / 4096
            expected.setdefault(f"tf:{name}", {})[term] = count
            df = expected.setdefault("df", {})
            df[term] = df.get(term, 0) + 1
        expected.setdefault("dl", {})[name] = len(terms)
    if documents:
        total = sum(map(len, documents.values()))
        expected["n"], expected["total"] = str(len(documents)), str(total)
        expected["avgdl"] = f"{total / len(documents):.17g}"
    return expected


def counted(steps: Any) -> tuple[Any, int, int]:
    """Run a search; return its result, the postings it visited and its round trips."""
    reply, visited, trips = None, 0, 0
    while True:
        try:
            command = steps.send(reply)
        except StopIteration as end:
            return end.value, visited, trips
        reply = run(command)
        visited, trips = visited + reply[2], trips + 1


def fill(count: int, text_of: Any, who_of: Any = lambda i: "anna") -> dict[str, str | None]:
    """Save many notes in one pipeline."""
    pipeline = get_redis().pipeline(transaction=False)
    texts: dict[str, str | None] = {}
    for i in range(count):
        note = WordedNote(name=f"n{i:05d}", who=who_of(i), text=text_of(i), rank=float(i))
        note.save(pipeline=pipeline)
        texts[f"WordedNote:n{i:05d}"] = note.text
    pipeline.execute()
    return texts


# -- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_formula_to_the_digit(server: redis.Redis) -> None:
    texts = {
        "a": "deployments failed after the database migration",
        "b": "the database is down, database restarted twice",
        "c": "lunch with Caroline near the harbour",
    }
    for name, text in texts.items():
        WordedNote.create(name=name, text=text)
    found = BM25Field.search(WordedNote, "words", "database deployment")
    assert found == brute_force({f"WordedNote:{n}": t for n, t in texts.items()}, "database deployment")
    assert [key for key, _ in found] == ["WordedNote:a", "WordedNote:b"]


def test_a_word_finds_its_inflections_and_accents(server: redis.Redis) -> None:
    WordedNote.create(name="a", text="She was running to the café")
    for query in ("runs", "RUNNING", "cafe", "cafés"):
        assert [key for key, _ in BM25Field.search(WordedNote, "words", query)] == ["WordedNote:a"], query


def test_equal_scores_are_ranked_by_descending_key(server: redis.Redis) -> None:
    texts = fill(30, lambda i: "same words here" if i % 3 else "other words there")
    for query in ("same", "words", "same words"):
        for limit in (1, 7, 25, 40):
            assert BM25Field.search(WordedNote, "words", query, limit=limit) == brute_force(texts, query)[:limit]


def test_a_repeated_word_of_the_query_counts_once(server: redis.Redis) -> None:
    fill(5, lambda i: f"alpha beta{i}")
    assert BM25Field.search(WordedNote, "words", "alpha alpha ALPHA") == BM25Field.search(WordedNote, "words", "alpha")


def test_k1_and_b_come_from_the_option_then_from_the_class(server: redis.Redis) -> None:
    class Short(BM25Field):
        BM25_K1 = 0.9
        BM25_B = 0.3

    class Turn(Model):
        name = KeyField()
        text = Field()
        by_class = Short("text")
        by_option = Short("text", k1=2.0, b=0.0)

    texts = {"Turn:a": "red red green", "Turn:b": "red green blue yellow", "Turn:c": "grey"}
    for key, text in texts.items():
        Turn.create(name=key[-1], text=text)
    assert BM25Field.search(Turn, "by_class", "red green") == brute_force(texts, "red green", k1=0.9, b=0.3)
    assert BM25Field.search(Turn, "by_option", "red green") == brute_force(texts, "red green", k1=2.0, b=0.0)
    assert server.exists("$BM25:Turn:by_class:dl", "$BM25:Turn:by_option:dl") == 2


def test_extreme_parameters_rank_as_the_formula_says(server: redis.Redis) -> None:
    class Extreme(Model):
        name = KeyField()
        text = Field()
        binary = BM25Field("text", k1=0, b=1)
        lengthy = BM25Field("text", k1=50, b=1)

    texts = {f"Extreme:{i}": "red " * (i % 4 + 1) + "green " * (i % 3) + "blue " * (i % 7) for i in range(40)}
    for key, text in texts.items():
        Extreme.create(name=key.split(":")[1], text=text)
    for query in ("red", "red green", "green blue red"):
        assert BM25Field.search(Extreme, "binary", query, limit=7) == brute_force(texts, query, k1=0, b=1)[:7]
        assert BM25Field.search(Extreme, "lengthy", query, limit=7) == brute_force(texts, query, k1=50, b=1)[:7]


# -- the index follows the record -------------------------------------------------------------------------------------


def test_a_partial_save_of_the_source_refreshes_the_index_and_others_leave_it(server: redis.Redis) -> None:
    note = WordedNote.create(name="a", who="anna", text="first words")
    note.text, note.who = "second words", "berta"
    note.save(update_fields=["who"])
    assert stored_index(server) == recounted_index({"WordedNote:a": "first words"})
    note.save(update_fields=["text"])
    assert stored_index(server) == recounted_index({"WordedNote:a": "second words"})


@pytest.mark.parametrize("empty", [None, "", "  ?! ", "the and you"])
@pytest.mark.parametrize("names", [None, ["text"]])
def test_a_text_without_words_leaves_the_index(server: redis.Redis, empty: str | None, names: Any) -> None:
    note = WordedNote.create(name="a", text="some words")
    other = WordedNote.create(name="b", text="other words")
    note.text = empty
    note.save(update_fields=names)
    assert stored_index(server) == recounted_index({"WordedNote:b": "other words"})
    other.delete()
    assert stored_index(server) == {}


def test_a_deleted_record_leaves_none_of_its_words_in_any_key(server: redis.Redis) -> None:
    WordedNote.create(name="other", text="something else entirely")
    note = WordedNote.create(name="doomed", text="xylophone zeppelin")
    note.delete()
    for key in server.scan_iter():
        content = [key]
        if server.type(key) == b"zset":
            content += server.zrange(key, 0, -1)
        elif server.type(key) == b"set":
            content += server.smembers(key)
        elif server.type(key) == b"hash":
            content += [part for pair in server.hgetall(key).items() for part in pair]
        else:
            content.append(server.get(key))
        left = b" ".join(content)
        assert b"xyloph" not in left and b"zeppelin" not in left
        assert b"doomed" not in left or key.startswith(b"$Token:")


def test_a_migrated_key_takes_its_words_along(server: redis.Redis) -> None:
    note = WordedNote.create(name="old", text="red green red")
    WordedNote.create(name="still", text="green")
    note.name = "new"
    note.save(migrate_key=True)
    assert stored_index(server) == recounted_index({"WordedNote:new": "red green red", "WordedNote:still": "green"})
    note.name, note.text = "newer", "blue"
    note.save(migrate_key=True, update_fields=["name"])
    assert stored_index(server) == recounted_index({"WordedNote:newer": "red green red", "WordedNote:still": "green"})
    note.name = "newest"
    note.save(migrate_key=True)
    assert stored_index(server) == recounted_index({"WordedNote:newest": "blue", "WordedNote:still": "green"})


def test_a_stale_instance_cannot_leave_words_behind(server: redis.Redis) -> None:
    WordedNote.create(name="a", text="first words")
    stale = WordedNote.query.get("WordedNote:a")
    WordedNote.create(name="a", text="second thoughts")
    stale.text = "third try"
    stale.save()
    assert stored_index(server) == recounted_index({"WordedNote:a": "third try"})


def test_saving_an_unchanged_text_again_writes_nothing_to_the_index(server: redis.Redis) -> None:
    note = WordedNote.create(name="a", who="anna", text="red green red blue")
    WordedNote.create(name="b", who="anna", text="red")
    for who in ("anna", "berta"):  # the whole record unchanged; another field changed
        note.who = who
        server.config_set("notify-keyspace-events", "KEA")
        events = server.pubsub()
        events.psubscribe("__keyspace@*__:$BM25*")
        assert events.get_message(timeout=5)["type"] == "psubscribe"
        note.save()
        server.publish("__keyspace@0__:$BM25 end", "end")  # events come in order
        assert events.get_message(timeout=5)["channel"].endswith(b" end")
        events.close()
        server.config_set("notify-keyspace-events", "")


def test_only_what_changed_is_written(server: redis.Redis) -> None:
    common = " ".join(f"word{i}" for i in range(300))
    note = WordedNote.create(name="a", text=common)
    note.text = common.replace("word7 ", "extra ")  # a text of another length has other scores in all its postings
    server.config_resetstat()
    note.save()
    assert server.info("commandstats")["cmdstat_zadd"]["calls"] < 12
    assert stored_index(server) == recounted_index({"WordedNote:a": note.text})


def test_an_index_deleted_by_hand_is_built_again_by_saving(server: redis.Redis) -> None:
    note = WordedNote.create(name="a", text="red green")
    server.delete(*server.scan_iter(match=r"\$BM25*"))
    note.save()
    assert stored_index(server) == recounted_index({"WordedNote:a": "red green"})


def test_a_refused_save_changes_nothing(server: redis.Redis) -> None:
    note = WordedNote.create(name="a", text="red green")
    server.set(f"{P}:inv:blue", "in the way")
    before = {key: server.dump(key) for key in server.scan_iter() if not key.startswith(b"$Token:")}
    note.text = "blue sky"
    with pytest.raises(ModelException, match="inv:blue holds a string"):
        note.save()
    assert before == {key: server.dump(key) for key in server.scan_iter() if not key.startswith(b"$Token:")}


def test_long_texts_of_many_words_are_kept_and_removed_whole(server: redis.Redis) -> None:
    text = " ".join(f"word{i}" for i in range(9000))
    note = WordedNote.create(name="a", text=text)
    WordedNote.create(name="b", text="word1 other")
    assert stored_index(server) == recounted_index({"WordedNote:a": text, "WordedNote:b": "word1 other"})
    note.name = "c"
    note.save(migrate_key=True)
    assert BM25Field.search(WordedNote, "words", "word8999") == brute_force(
        {"WordedNote:c": text, "WordedNote:b": "word1 other"}, "word8999"
    )
    note.delete()
    assert stored_index(server) == recounted_index({"WordedNote:b": "word1 other"})


def test_any_character_may_stand_in_a_term_or_a_key(server: redis.Redis) -> None:
    texts = {
        "a:b": "x:y {tag} x:y inv: tf:Peculiar:a",
        "{c}": "\U0001f600 \U0001f468\u200d\U0001f469 猫 * ? [a]",
        "d e": "x" * 20_000 + " \x00null\x00 'q' \"q\" $BM25",
        "猫": "猫 42 %s %d {0}",
    }
    keep = {}
    for name, text in texts.items():
        keep[Peculiar.create(name=name, text=text).pk] = text
    base = "$BM25:Peculiar:words"
    assert stored_index(server, base) == recounted_index(keep, str.split)
    for query in ("x:y", "\U0001f600 猫", "x" * 20_000, "\x00null\x00", "* [a] {0}", "{tag} $BM25"):
        assert BM25Field.search(Peculiar, "words", query) == brute_force(keep, query, str.split, 0.9, 0.3) != []
    for key in list(keep):
        Peculiar.query.get(redis_key=key).delete()
    assert stored_index(server, base) == {}


def test_a_list_is_searched_as_one_text(server: redis.Redis) -> None:
    class Tagged(Model):
        name = KeyField()
        tags = Field(type=list)
        words = BM25Field("tags")

    Tagged.create(name="a", tags=["red wine", "cheese"])
    assert BM25Field.search(Tagged, "words", "cheese wine")[0][0] == "Tagged:a"


class IndexMatchesARecount(RuleBasedStateMachine):
    """Saves, partial saves, deletions and migrations in any order; the dict `texts` is the meaning."""

    server: redis.Redis
    names = st.sampled_from(["a", "b", "c:d", "{e}", "f g"])
    texts_drawn = st.one_of(
        st.none(),
        st.lists(
            st.sampled_from(["red", "reds", "green", "blue", "the", "x", "東京", "grey"]), min_size=0, max_size=6
        ).map(" ".join),
    )

    @initialize()
    def start(self) -> None:
        self.server.flushall()
        self.texts: dict[str, str | None] = {}
        self.notes: dict[str, WordedNote] = {}

    @rule(name=names, text=texts_drawn, who=st.sampled_from(["anna", "berta"]))
    def save_new_or_over(self, name: str, text: str | None, who: str) -> None:
        self.notes[name] = WordedNote.create(name=name, text=text, who=who)
        self.texts[self.notes[name].pk] = text

    @rule(name=names, text=texts_drawn, named=st.sampled_from([["text"], ["who"], ["text", "who"], ["rank", "text"]]))
    def save_partly(self, name: str, text: str | None, named: list[str]) -> None:
        if name in self.notes:
            note = self.notes[name]
            note.text = text
            note.save(update_fields=named)
            if "text" in named:
                self.texts[note.pk] = text
            else:
                note.text = self.texts[note.pk]

    @rule(name=names)
    def save_again(self, name: str) -> None:
        if name in self.notes:
            self.notes[name].save()

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.notes:
            note = self.notes.pop(name)
            del self.texts[note.pk]
            note.delete()

    @rule(name=names, new=names, text=texts_drawn, change_text=st.booleans())
    def migrate(self, name: str, new: str, text: str | None, change_text: bool) -> None:
        if name in self.notes and new not in self.notes:
            note = self.notes.pop(name)
            old_text = self.texts.pop(note.pk)
            note.name = new
            if change_text:
                note.text = text
            note.save(migrate_key=True)
            self.notes[new] = note
            self.texts[note.pk] = text if change_text else old_text

    @rule(
        query=st.lists(st.sampled_from(["red", "green", "blue", "grey", "東京", "none"]), min_size=1, max_size=4),
        limit=st.integers(1, 6),
    )
    def search(self, query: list[str], limit: int) -> None:
        text = " ".join(query)
        assert BM25Field.search(WordedNote, "words", text, limit=limit) == brute_force(self.texts, text)[:limit]

    @invariant()
    def nothing_more_and_nothing_less_is_stored(self) -> None:
        if hasattr(self, "texts"):
            assert stored_index(self.server) == recounted_index(self.texts)


def test_the_index_is_exact_after_any_history(server: redis.Redis) -> None:
    IndexMatchesARecount.server = server
    run_state_machine_as_test(
        IndexMatchesARecount,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# -- pruning, slices, filters ---------------------------------------------------------------------------------------


def skewed_text(i: int) -> str:
    """Return a text in which low word numbers are frequent; lengths and counts differ from record to record."""
    words = [f"w{j}x" for j in range(1, 40) if (i * 7919 + j * 104_729) % (j + 1) == 0]
    return " ".join(words * (i % 3 + 1) + [f"w{i % 5 + 1}x"] * (i % 4))


QUERIES = ["w1x", "w39x", "w1x w2x", "w3x w20x w38x", "w1x w2x w3x w4x w5x", "w30x w31x w1x", "nothing w17x", "w8x w2x"]


def test_a_search_equals_scoring_everything_and_reads_only_what_can_matter(server: redis.Redis) -> None:
    texts = fill(1500, skewed_text)
    visited_in_all = postings_in_all = 0
    for query in QUERIES:
        for limit in (1, 10):
            found, visited, trips = counted(search_steps(WordedNote, "words", query, limit))
            assert found == brute_force(texts, query)[:limit]
            assert trips == 1
            visited_in_all += visited
            postings_in_all += sum(server.zcard(f"{P}:inv:{term}") for term in ENGLISH(query))
    assert visited_in_all < postings_in_all / 3


def test_a_store_of_equals_is_not_read_whole(server: redis.Redis) -> None:
    texts = fill(1000, lambda i: "same words")
    found, visited, _ = counted(search_steps(WordedNote, "words", "words", 10))
    assert found == brute_force(texts, "words")[:10]
    assert visited < 100


FREQUENT = (["w1x"], ["w2x"], ["w1x", "w2x"], ["w1x", "w2x", "w3x"], ["w4x", "w2x", "w1x", "w5x"], ["w1x", "w9x"])


def test_queries_of_frequent_words_only_read_few_of_their_postings(server: redis.Redis) -> None:
    rng = random.Random(7)
    vocabulary = [f"w{j}x" for j in range(1, 400)]
    frequencies = [1 / (j + 1) for j in range(len(vocabulary))]
    texts = fill(3000, lambda i: " ".join(rng.choices(vocabulary, frequencies, k=rng.randint(3, 60))))
    read_in_all = postings_in_all = 0
    for terms in FREQUENT:
        postings = sum(server.zcard(f"{P}:inv:{term}") for term in terms)
        for limit in (1, 10):
            found, visited, trips = counted(search_steps(WordedNote, "words", " ".join(terms), limit))
            assert found == brute_force(texts, " ".join(terms))[:limit]
            assert trips == 1
            assert visited <= postings
            read_in_all, postings_in_all = read_in_all + visited, postings_in_all + postings
    assert read_in_all < postings_in_all / 3


@pytest.mark.parametrize("k1,b", [(1.2, 0.75), (0.0, 0.75), (1.2, 0.0), (0.9, 1.0)])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), size=st.integers(1, 300), slice_size=st.sampled_from([17, 100, 6000]))
def test_any_corpus_and_parameters_rank_as_scoring_everything(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch, k1: float, b: float, seed: int, size: int, slice_size: int
) -> None:
    server.flushdb()
    monkeypatch.setattr(bm25, "SLICE", slice_size)
    monkeypatch.setattr(BM25Field, "BM25_K1", k1)
    monkeypatch.setattr(BM25Field, "BM25_B", b)
    rng = random.Random(seed)
    vocabulary = [f"w{j}x" for j in range(1, 12)]
    lengths = rng.choice([(1, 3), (1, 30), (10, 10), (1, 90)])
    texts = fill(
        size,
        lambda i: " ".join(rng.choices(vocabulary, [1 / j for j in range(1, 12)], k=rng.randint(*lengths))),
        lambda i: f"p{i % 3}",
    )
    where = WordedNote.query.filter(who="p1").compiled().where
    for _ in range(4):
        query, limit = " ".join(rng.sample(vocabulary, rng.randint(1, 5))), rng.choice([1, 3, 10, 400])
        expected = brute_force(texts, query, k1=k1, b=b)
        assert drive(search_steps(WordedNote, "words", query, limit)) == expected[:limit]
        some = [pair for pair in expected if int(pair[0][-5:]) % 3 == 1]
        assert drive(search_steps(WordedNote, "words", query, limit, where=where)) == some[:limit]


def test_postings_of_an_older_layout_are_ranked_exactly_and_a_save_renews_them(server: redis.Redis) -> None:
    rng = random.Random(11)
    texts = fill(400, lambda i: " ".join(rng.choices(["w1x", "w2x", "w3x"], k=rng.randint(1, 25))))
    for key in server.scan_iter(match=r"\$BM25:*:inv:*"):  # every second posting holds a count only
        old = {member: int(score) for member, score in server.zrange(key, 0, -1, withscores=True)}
        server.zadd(key, {member: count for member, count in old.items() if int(member[-1:]) % 2})
    for query in ("w1x", "w1x w2x", "w3x w2x w1x"):
        for limit in (1, 10, 500):
            assert drive(search_steps(WordedNote, "words", query, limit)) == brute_force(texts, query)[:limit]
    for note in WordedNote.query.all():
        note.text += " more"
        note.save()
        texts[note.pk] = note.text
    assert stored_index(server) == recounted_index(texts)


def test_texts_longer_than_a_posting_can_tell_are_ranked_by_their_length(server: redis.Redis) -> None:
    texts = fill(150, lambda i: "w1x " * (i % 7 + 1) + "pad " * ((i * 37 % 150) * 60))
    for limit in (1, 10, 150):
        assert drive(search_steps(WordedNote, "words", "w1x", limit)) == brute_force(texts, "w1x")[:limit]
    assert stored_index(server) == recounted_index(texts)


def test_a_search_is_one_round_trip(server: redis.Redis, round_trips: Any) -> None:
    fill(50, skewed_text)
    BM25Field.search(WordedNote, "words", "w1x")
    with round_trips() as trips:
        BM25Field.search(WordedNote, "words", "w1x w2x")
    assert trips.count == 1
    with round_trips() as trips:
        drive(scores_steps(WordedNote, "words", "w1x w2x", ["WordedNote:n00001", "WordedNote:n00002"]))
    assert trips.count == 1
    BM25Field.get_idf(WordedNote, "words", ["w1x"])
    with round_trips() as trips:
        BM25Field.get_idf(WordedNote, "words", ["w1x", "w2x", "none"])
    assert trips.count == 1


@pytest.mark.parametrize("size", [20, 64, 333])
def test_a_search_in_slices_finds_the_same(server: redis.Redis, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    texts = fill(700, skewed_text, lambda i: f"p{i % 2}")
    monkeypatch.setattr(bm25, "SLICE", size)
    where = WordedNote.query.filter(who="p1").compiled().where
    some = {key: text for key, text in texts.items() if int(key[-1]) % 2}
    trips_in_all = 0
    for query in QUERIES:
        found, visited, trips = counted(search_steps(WordedNote, "words", query, 10))
        assert found == brute_force(texts, query)[:10]
        assert visited <= trips * size
        trips_in_all += trips
        found, _, _ = counted(search_steps(WordedNote, "words", query, 10, where=where))
        assert found == [pair for pair in brute_force(texts, query) if pair[0] in some][:10]
    assert trips_in_all > len(QUERIES)


def test_writes_between_slices_are_seen_and_lose_nothing_that_stays(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = fill(400, lambda i: "common " + " ".join(["pad"] * (399 - i)))
    monkeypatch.setattr(bm25, "SLICE", 20)
    steps = search_steps(WordedNote, "words", "common", 50)
    reply = run(next(steps))
    assert reply[0]
    position = reply[0][2][1].decode()  # the search would go on at this record
    gone = WordedNote.query.get(redis_key=position)
    gone.delete()
    best = WordedNote.query.get(redis_key=brute_force(texts, "common")[0][0])
    best.text = "entirely different"
    best.save()
    late = WordedNote.create(name="a", text="common" + " pad" * 30)  # its place is not reached yet
    texts |= {best.pk: best.text, late.pk: late.text}
    del texts[gone.pk]
    with pytest.raises(StopIteration) as end:
        while True:
            reply = run(steps.send(reply))
    assert end.value.value == brute_force(texts, "common")[:50]


@pytest.mark.parametrize("limit", [1, 10, 500])
def test_filters_restrict_what_is_ranked(server: redis.Redis, limit: int) -> None:
    texts = fill(1200, skewed_text, lambda i: "rare" if i % 100 == 7 else f"p{i % 3}")

    def expected(query: str, keep: Any) -> list[tuple[str, float]]:
        return [(key, score) for key, score in brute_force(texts, query) if keep(int(key[-5:]))][:limit]

    cases: list[tuple[dict[str, Any], Any]] = [
        ({"who": "rare"}, lambda i: i % 100 == 7),
        ({"who": "p1"}, lambda i: i % 100 != 7 and i % 3 == 1),
        ({"rank__gte": 300}, lambda i: i >= 300),
        ({"rank__gte": 300, "who": "p2"}, lambda i: i >= 300 and i % 100 != 7 and i % 3 == 2),
        ({"name__in": ["n00007", "n00008", "nobody"]}, lambda i: i in (7, 8)),
        ({"who__startswith": "p"}, lambda i: i % 100 != 7),
        ({"who": "nobody"}, lambda i: False),
    ]
    for filters, keep in cases:
        where = WordedNote.query.filter(**filters).compiled().where
        for query in ("w1x w2x", "w20x w3x", "w9x"):
            assert drive(search_steps(WordedNote, "words", query, limit, where=where)) == expected(query, keep), filters


def test_offset_skips_the_best(server: redis.Redis) -> None:
    texts = fill(60, skewed_text)
    assert drive(search_steps(WordedNote, "words", "w1x w2x", 5, offset=7)) == brute_force(texts, "w1x w2x")[7:12]


def test_expired_records_never_appear(server: redis.Redis) -> None:
    texts = fill(40, skewed_text)
    best = [key for key, _ in brute_force(texts, "w1x w2x")[:5]]
    for key in best:
        expire(server, key)
    rest = [pair for pair in brute_force(texts, "w1x w2x") if pair[0] not in best]
    assert BM25Field.search(WordedNote, "words", "w1x w2x", limit=10) == rest[:10]
    where = WordedNote.query.filter(who="anna").compiled().where
    assert drive(search_steps(WordedNote, "words", "w1x w2x", 10, where=where)) == rest[:10]
    note = WordedNote(name="new", text="short", _ttl=1000)
    note.save()  # a write with a TTL clears away what expired
    alive = {key: text for key, text in texts.items() if key not in best}
    assert stored_index(server) == recounted_index({**alive, "WordedNote:new": "short"})


def expire(server: redis.Redis, key: str) -> None:
    """Leave what is left when a TTL ends: the hash is gone, all else is still there."""
    server.zadd(model_keys("", "WordedNote").expiry, {key: 1.0})
    server.delete(key)


@pytest.mark.parametrize("text", ["red green", "red blue", "", None])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_record_in_the_place_of_an_expired_one_has_its_own_words_only(
    server: redis.Redis, text: str | None, noticed: bool
) -> None:
    old = WordedNote(name="a", text="red green", _ttl=1000)
    old.save()
    server.delete(old.pk) if not noticed else expire(server, old.pk)
    WordedNote.create(name="a", text=text)
    assert stored_index(server) == recounted_index({"WordedNote:a": text})
    WordedNote(name="b", text="red green", _ttl=1000).save()
    server.delete("WordedNote:b") if not noticed else expire(server, "WordedNote:b")
    note = WordedNote.query.get("WordedNote:a")
    note.name = "b"
    note.save(migrate_key=True)
    assert stored_index(server) == recounted_index({"WordedNote:b": text})


def test_scores_of_given_records_are_those_of_the_search(server: redis.Redis) -> None:
    texts = fill(100, skewed_text)
    scores = dict(brute_force(texts, "w2x w3x"))
    asked = ["WordedNote:n00003", "WordedNote:n00050", "WordedNote:missing", "WordedNote:n00003", "WordedNote:n00001"]
    assert drive(scores_steps(WordedNote, "words", "w2x w3x", asked)) == {key: scores.get(key, 0.0) for key in asked}
    assert drive(scores_steps(WordedNote, "words", "w2x w3x", list(texts))) == {k: scores.get(k, 0.0) for k in texts}
    assert drive(scores_steps(WordedNote, "words", "", asked)) == dict.fromkeys(asked, 0.0)
    assert drive(scores_steps(WordedNote, "words", "w2x", [])) == {}


def test_scores_of_many_records_come_in_one_call(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = fill(90, skewed_text)
    monkeypatch.setattr(bm25, "KEYS_A_CALL", 20)
    scores = dict(brute_force(texts, "w2x"))
    assert drive(scores_steps(WordedNote, "words", "w2x", list(texts))) == {key: scores.get(key, 0.0) for key in texts}


def test_async_calls_give_the_same(server: redis.Redis) -> None:
    fill(20, skewed_text)

    async def both() -> tuple[Any, Any, Any]:
        return (
            await BM25Field.async_search(WordedNote, "words", "w1x w2x"),
            await BM25Field.async_get_idf(WordedNote, "words", ["w1x"]),
            await BM25Field.async_filter_selective_tokens(WordedNote, "words", ["w1x", "zzz"]),
        )

    found, idf, selective = asyncio.run(both())
    assert found == BM25Field.search(WordedNote, "words", "w1x w2x")
    assert idf == BM25Field.get_idf(WordedNote, "words", ["w1x"])
    assert selective == BM25Field.filter_selective_tokens(WordedNote, "words", ["w1x", "zzz"])


# -- idf and statistics ------------------------------------------------------------------------------------------------


def test_idf_is_that_of_the_formula(server: redis.Redis) -> None:
    for name, text in {"a": "kubernetes deployment", "b": "deployments fail", "c": "deploying nginx"}.items():
        WordedNote.create(name=name, text=text)
    found = BM25Field.get_idf(WordedNote, "words", ["kubernetes", "deployment", "the", "NGINX", "absent"])
    one, three, unseen = (math.log((3 - df + 0.5) / (df + 0.5) + 1) for df in (1, 3, 0))
    assert found == {"kubernetes": one, "deployment": three, "the": unseen, "NGINX": unseen, "absent": unseen}
    assert unseen == pytest.approx(math.log(2 * 3 + 2))
    assert BM25Field.get_idf(WordedNote, "words", "deployment") == {"deployment": three}
    assert BM25Field.get_idf(WordedNote, "words", ["kubernet", "deploy"]) == {"kubernet": one, "deploy": three}


def test_idf_of_nothing_and_of_an_empty_index(server: redis.Redis) -> None:
    assert BM25Field.get_idf(WordedNote, "words", []) == BM25Field.get_idf(WordedNote, "words", None) == {}
    assert BM25Field.get_idf(WordedNote, "words", ["red", "blue"]) == {"red": 0.0, "blue": 0.0}
    assert BM25Field.search(WordedNote, "words", "red") == []


def test_selective_tokens_keep_their_order(server: redis.Redis) -> None:
    fill(20, lambda i: f"common word{i}")
    tokens = ["word3", "common", "absent", "word7"]
    assert BM25Field.filter_selective_tokens(WordedNote, "words", tokens) == ["word3", "absent", "word7"]
    assert BM25Field.filter_selective_tokens(WordedNote, "words", tokens, min_idf=0.0) == tokens
    assert BM25Field.filter_selective_tokens(WordedNote, "words", "absent") == ["absent"]
    assert BM25Field.filter_selective_tokens(WordedNote, "words", []) == []


def test_statistics_are_counted_anew_on_demand(server: redis.Redis) -> None:
    texts = fill(10, skewed_text)
    right = stored_index(server)
    server.mset({f"{P}:n": 77, f"{P}:total": 5, f"{P}:avgdl": "0.1"})
    assert BM25Field.recompute_stats(WordedNote, "words") == (int(right["n"]), int(right["total"]))
    assert stored_index(server) == right == recounted_index(texts)
    server.flushall()
    assert BM25Field.recompute_stats(WordedNote, "words") == (0, 0)


def test_an_index_without_exact_totals_still_answers_and_counts_on_the_next_save(server: redis.Redis) -> None:
    texts = fill(10, skewed_text)
    server.delete(f"{P}:total")
    found = BM25Field.search(WordedNote, "words", "w1x w2x", limit=5)
    assert found == brute_force(texts, "w1x w2x")[:5]
    texts[WordedNote.create(name="more", text="w1x").pk] = "w1x"
    assert stored_index(server) == recounted_index(texts)
    server.delete(f"{P}:total", f"{P}:avgdl")
    with pytest.raises(QueryException, match="recompute_stats"):
        BM25Field.search(WordedNote, "words", "w1x")


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_what_asks_for_nothing_gets_nothing(server: redis.Redis) -> None:
    fill(5, skewed_text)
    for query in (None, "", "   ", "the and", "unknown"):
        assert BM25Field.search(WordedNote, "words", query) == []
    for limit in (0, -1):
        assert BM25Field.search(WordedNote, "words", "w1x", limit=limit) == []


@pytest.mark.parametrize("name", ["text", "nothing", None])
def test_a_field_of_another_kind_is_refused_by_name(server: redis.Redis, name: Any) -> None:
    for call in (
        lambda: BM25Field.search(WordedNote, name, "x"),
        lambda: BM25Field.get_idf(WordedNote, name, ["x"]),
        lambda: BM25Field.recompute_stats(WordedNote, name),
        lambda: BM25Field.filter_selective_tokens(WordedNote, name, ["x"]),
    ):
        with pytest.raises(QueryException, match="BM25 fields: words"):
            call()


def test_wrong_types_get_a_sentence(server: redis.Redis) -> None:
    with pytest.raises(TypeError, match="query_text: expected a text"):
        BM25Field.search(WordedNote, "words", 42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limit"):
        BM25Field.search(WordedNote, "words", "x", limit=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tokens"):
        BM25Field.get_idf(WordedNote, "words", [1])  # type: ignore[list-item]
    with pytest.raises(QueryException, match="surrogate"):
        BM25Field.search(Peculiar, "words", "half \ud800")


def test_a_source_is_required() -> None:
    for wrong in ({}, {"source": None}, {"source": ""}, {"source": 5}):
        with pytest.raises(ValueError, match="source"):
            BM25Field(**wrong)  # type: ignore[arg-type]


def test_a_source_must_be_a_text_field_of_the_model() -> None:
    with pytest.raises(ModelException, match="names no field of the model"):

        class Lost(Model):
            name = KeyField()
            words = BM25Field("txt")

    with pytest.raises(ModelException, match="has no text"):

        class Doubled(Model):
            name = KeyField()
            words = BM25Field("name")
            again = BM25Field("words")


@pytest.mark.parametrize(
    "options", [{"k1": -1}, {"k1": "x"}, {"b": 1.5}, {"b": True}, {"tokenizer": 5}, {"default": "x"}, {"unique": True}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelException, match="BM25Field"):
        BM25Field("text", **options)


def test_the_field_takes_no_value_and_is_stored_as_none(server: redis.Redis) -> None:
    with pytest.raises(ModelException, match="takes no value"):
        WordedNote(name="a", words="text")
    note = WordedNote.create(name="a", text="red")
    assert note.words is None and WordedNote.query.get("WordedNote:a").words is None
    assert server.hget("WordedNote:a", "words") == b"\xc0"
    note.words = "red"
    with pytest.raises(ModelException, match="takes no value"):
        note.save()
    with pytest.raises(QueryException, match="keyword_search"):
        WordedNote.query.filter(words="red").all()


def test_an_abstract_base_may_name_a_source_of_its_subclasses(server: redis.Redis) -> None:
    class Searchable(Model):
        words = BM25Field("body", tokenizer=DEFAULT)

        class Meta:
            abstract = True

    class Page(Searchable):
        name = KeyField()
        body = Field()

    Page.create(name="a", body="Running")
    assert BM25Field.search(Page, "words", "run") == []
    assert [key for key, _ in BM25Field.search(Page, "words", "running")] == ["Page:a"]
