"""Questions about one picture or two, and the one function that knows every answer.

A generator only writes a question; its answer is looked up in the meaning, as it is for a question from a user.
"""

from __future__ import annotations

import re

import numpy as np

from mixmodal.data.worlds.scene_grammar import (
    COLOURS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    UNSEEN_PAIRS,
    Group,
    Meaning,
    plural_of,
    same_meaning,
    singular_of,
)

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
SAME, FIRST, SECOND, NEITHER = "do the two pictures show the same", "the first", "the second", "neither"
CHANGED = "what changed"


def phrase(group: Group, meaning: Meaning, rng: np.random.Generator | None = None, count: int | None = None) -> str:
    """The shortest words that mean this group alone in the scene, without article: "circle", "red circles".

    With `rng` at times a longer form; `count` overrides the group's own for singular or plural.
    """
    fitting = [
        form
        for form in ((2,), (1, 2), (0, 2), (0, 1, 2))
        if sum(all(other.look[i] == group.look[i] for i in form) for other in meaning.groups) == 1
    ]
    form = fitting[int(rng.integers(len(fitting)))] if rng is not None and rng.random() < 0.3 else fitting[0]
    noun = group.shape if (group.count if count is None else count) == 1 else plural_of(group.shape)
    return " ".join([group.look[i] for i in form if i != 2] + [noun])


def described(words: str) -> tuple[str | None, str | None, str | None] | None:
    """Size, colour and shape that a phrase such as "big red circles" or "red objects" names, None where it is silent;
    None for words that are no such phrase."""
    *before, noun = words.split(" ")
    size = before.pop(0) if before and before[0] in SIZES else None
    colour = before.pop(0) if before and before[0] in COLOURS else None
    shape = singular_of(noun) if noun not in ("object", "objects") else None
    if before or (shape not in SHAPES and noun not in ("object", "objects")):
        return None
    return size, colour, shape


def chosen(words: str, meaning: Meaning) -> list[int]:
    """The indices of the groups that a phrase fits."""
    wanted = described(words)
    if wanted is None:
        return []
    return [
        index
        for index, group in enumerate(meaning.groups)
        if all(want is None or want == has for want, has in zip(wanted, group.look, strict=True))
    ]


def _only(words: str, meaning: Meaning) -> Group | None:
    found = chosen(words, meaning)
    return meaning.groups[found[0]] if len(found) == 1 else None


def _count(words: str, meaning: Meaning) -> int:
    return sum(meaning.groups[index].count for index in chosen(words, meaning))


def relation_of(first: Group, meaning: Meaning) -> str:
    """How a group lies to the other one."""
    return meaning.relation if meaning.groups[0] is first else OPPOSITE[meaning.relation]


_WHAT = re.compile("what (colour|shape|size) (?:is|are) the (.+)")
_MANY = re.compile("how many (.+) are there")
_THERE = re.compile("is there an? (.+)")
_WHERE = re.compile("what (?:is|are) (" + "|".join(RELATIONS) + ") the (.+)")
_LIES = re.compile("(?:is|are) the (.+) (" + "|".join(RELATIONS) + ") the (.+)")
_MORE = re.compile("which picture has more (.+)")


def answer(question: str, meaning: Meaning) -> str | None:
    """The answer to a question about one picture, or None where it has none."""
    if question == "what colour is the background":
        return meaning.background
    if match := _WHAT.fullmatch(question):
        group = _only(match[2], meaning)
        return getattr(group, match[1]) if group else None
    if match := _MANY.fullmatch(question):
        return NUMBERS[_count(match[1], meaning)] if described(match[1]) else None
    if match := _THERE.fullmatch(question):
        return ("yes" if chosen(match[1], meaning) else "no") if described(match[1]) else None
    if match := _WHERE.fullmatch(question):
        group = _only(match[2], meaning)
        if group is None or meaning.relation is None or relation_of(group, meaning) != OPPOSITE[match[1]]:
            return None
        return next(other for other in meaning.groups if other is not group).words()
    if match := _LIES.fullmatch(question):
        one, two = _only(match[1], meaning), _only(match[3], meaning)
        if one is None or two is None or one is two:
            return None
        return "yes" if relation_of(one, meaning) == match[2] else "no"
    return None


def ask(meaning: Meaning, rng: np.random.Generator, unseen: bool = False) -> tuple[str, str]:
    """A question about one picture and its answer. Only with `unseen` it may name pairs held out from training."""
    for _ in range(50):
        question = _question(meaning, rng)
        said = answer(question, meaning)
        if said is not None and (unseen or not names_unseen(question)):
            return question, said
    return "what colour is the background", meaning.background


def names_unseen(words: str) -> bool:
    """Whether words name, side by side, a colour and a shape that never occur together in training."""
    pieces = words.split(" ")
    return any(
        (singular_of(noun), colour) in UNSEEN_PAIRS for colour, noun in zip(pieces[:-1], pieces[1:], strict=True)
    )


def _pick(options, rng):
    return options[int(rng.integers(len(options)))]


def _look(meaning: Meaning, rng) -> str:
    """Words for some look, plural: often one of the scene, else near one of it."""
    group = _pick(meaning.groups, rng)
    shape, colour, size = group.shape, group.colour, group.size
    if rng.random() < 0.25:
        shape = _pick(SHAPES, rng)
    if rng.random() < 0.25:
        colour = _pick(COLOURS, rng)
    return _pick((f"{colour} {shape}", shape, f"{colour} object", f"{size} {colour} {shape}", f"{size} object"), rng)


def _many(words: str) -> str:
    head, _, noun = words.rpartition(" ")
    return f"{head} {plural_of(noun)}".strip()


def _question(meaning: Meaning, rng) -> str:
    group = _pick(meaning.groups, rng)
    verb = "is" if group.count == 1 else "are"
    kind = int(rng.integers(9 if meaning.relation else 6))
    if kind == 0:
        return f"what colour {verb} the {_without(group, meaning, rng, 1)}"
    if kind == 1:
        return f"what shape {verb} the {_without(group, meaning, rng, 2)}"
    if kind == 2:
        return f"what size {verb} the {_without(group, meaning, rng, 0)}"
    if kind == 3:
        return f"how many {_pick((_many(_look(meaning, rng)), 'objects'), rng)} are there"
    if kind == 4:
        look = _look(meaning, rng)
        return f"is there {'an' if look[0] == 'o' else 'a'} {look}"
    if kind == 5:
        return "what colour is the background"
    other = meaning.groups[1 - meaning.groups.index(group)]
    if kind == 6:
        told = "is" if other.count == 1 else "are"
        return f"what {told} {OPPOSITE[relation_of(group, meaning)]} the {phrase(group, meaning, rng)}"
    relation = relation_of(group, meaning) if rng.random() < 0.5 else _pick(RELATIONS, rng)
    return f"{verb} the {phrase(group, meaning, rng)} {relation} the {phrase(other, meaning, rng)}"


def _without(group: Group, meaning: Meaning, rng, hidden: int) -> str:
    """Words for a group that do not give away one of its attributes; they may fit both groups."""
    size = group.size if hidden != 0 and rng.random() < 0.5 else ""
    colour = group.colour if hidden != 1 and rng.random() < 0.6 else ""
    noun = group.shape if hidden != 2 else "object"
    return " ".join(word for word in (size, colour, noun if group.count == 1 else plural_of(noun)) if word)


def answer_two(question: str, first: Meaning, second: Meaning) -> str | None:
    """The answer to a question about two pictures, or None where it has none."""
    if question == CHANGED:
        return difference(first, second)
    if question == SAME:
        return "yes" if same_meaning(first, second) else "no"
    if question == "are the two backgrounds the same":
        return "yes" if first.background == second.background else "no"
    if (match := _MORE.fullmatch(question)) and described(match[1]):
        one, two = _count(match[1], first), _count(match[1], second)
        return NEITHER if one == two else FIRST if one > two else SECOND
    return None


def difference(first: Meaning, second: Meaning) -> str | None:
    """What changed from one scene to the next as a sentence, "nothing", or None where more than one thing did."""
    if same_meaning(first, second):
        return "nothing"
    for other in (second, second.flipped()):
        told = _difference(first, other)
        if told is not None:
            return told
    return None


def _difference(first: Meaning, second: Meaning) -> str | None:
    same_groups = first.groups == second.groups and first.relation == second.relation
    if first.background != second.background:
        return f"the background became {second.background}" if same_groups else None
    if len(first.groups) != len(second.groups):
        more, less, verb = (first, second, "removed") if len(first.groups) == 2 else (second, first, "added")
        rest = [group for group in more.groups if group != less.groups[0]]
        if len(rest) != 1:
            return None
        return f"{rest[0].words()} {'was' if rest[0].count == 1 else 'were'} {verb}"
    if first.relation != second.relation:
        return None
    changed = [(one, two) for one, two in zip(first.groups, second.groups, strict=True) if one != two]
    if len(changed) != 1:
        return None
    one, two = changed[0]
    parts = [name for name in ("count", "size", "colour", "shape") if getattr(one, name) != getattr(two, name)]
    if len(parts) != 1:
        return None
    what = f"the {phrase(one, first)}"
    if parts[0] == "count":
        many = abs(one.count - two.count)
        some = Group(many, *one.look).words()
        return f"{some} {'was' if many == 1 else 'were'} {'added' if two.count > one.count else 'removed'}"
    if parts[0] == "shape":
        return f"{what} became " + (f"a {two.shape}" if one.count == 1 else plural_of(two.shape))
    return f"{what} became {getattr(two, parts[0])}"


def ask_two(first: Meaning, second: Meaning, rng: np.random.Generator, unseen: bool = False) -> tuple[str, str]:
    """A question about two pictures and its answer. Only with `unseen` it may name pairs held out from training."""
    for _ in range(50):
        kind = rng.random()
        if kind < 0.5:
            question = CHANGED
        elif kind < 0.6:
            question = SAME
        elif kind < 0.7:
            question = "are the two backgrounds the same"
        else:
            what = "objects" if rng.random() < 0.4 else _many(_look(_pick((first, second), rng), rng))
            question = f"which picture has more {what}"
        said = answer_two(question, first, second)
        if said is not None and (unseen or not (names_unseen(question) or names_unseen(said))):
            return question, said
    return SAME, answer_two(SAME, first, second)
