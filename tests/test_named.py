"""Named data: found through the environment, and read as it is described; skipped where it is not at hand."""

import json

import numpy as np
import pytest

from mixmodal.data.named import EmojiNoto, TilesCrawl, averaged, data_folder, named, over, plain

RNG = np.random.default_rng(0)


def have(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not (data_folder() / name / "captions.jsonl").is_file(),
        reason=f"{name} is not in {data_folder()}: set MIXMODAL_DATA to the folder that holds it",
    )


def made_up(folder) -> None:
    """A folder with the layout of emoji-noto and six pictures."""
    (folder / "emoji-noto").mkdir()
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    np.savez(folder / "emoji-noto" / "images64.npz", images=images)
    records = [
        {
            "name": f"face’s {number}",
            "keywords": ["face", "face’s", "happy", "sun shine"],
            "group": "food" if number % 2 else "flags",
            "skin_tone": ["dark"] if number == 4 else [],
            "split": "val" if number == 5 else "train",
        }
        for number in range(6)
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    (folder / "emoji-noto" / "captions.jsonl").write_text(lines, "utf-8")


def test_data_that_is_not_there_says_what_was_looked_for_and_how_to_set_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"images64.npz and captions.jsonl in .*set MIXMODAL_DATA .*is set"):
        named("emoji-noto")
    monkeypatch.delenv("MIXMODAL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "mixmodal"
    with pytest.raises(FileNotFoundError, match="MIXMODAL_DATA is not set"):
        named("tiles-crawl")
    with pytest.raises(ValueError, match="the names are emoji-noto, tiles-crawl"):
        named("cats")


def test_splits_groups_and_skin_tones_choose_the_pictures(tmp_path, monkeypatch):
    made_up(tmp_path)
    monkeypatch.setenv("MIXMODAL_DATA", str(tmp_path))
    assert EmojiNoto().names() == ["face's 0", "face's 1", "face's 2", "face's 3"]
    assert EmojiNoto(skin_tones=True).size == 5
    assert EmojiNoto(split="heldout").names() == EmojiNoto(split="valid").names() == ["face's 5"]
    flags = EmojiNoto(groups=["flags"])
    assert flags.names() == ["face's 0", "face's 2"] and (flags.pair(1)[0] == 2).all()
    with pytest.raises(ValueError, match="groups of emoji-noto are flags, food; got drinks"):
        EmojiNoto(groups=["drinks"])
    with pytest.raises(ValueError, match="no picture in split 'valid'"):
        EmojiNoto(groups=["flags"], split="valid")
    with pytest.raises(ValueError, match="between 0 and 1"):
        EmojiNoto(bare=2)
    with pytest.raises(ValueError, match="split is one of"):
        EmojiNoto(split="test")


def test_a_prompt_is_the_name_alone_or_with_keywords_it_does_not_say_yet(tmp_path):
    made_up(tmp_path)
    source = EmojiNoto(16, {"draw": 1}, where=tmp_path)
    assert source.words(1) == ["happy", "sun shine"]
    prompts = {source.document(1, np.random.default_rng(seed)).parts[0].text for seed in range(60)}
    assert prompts == {"face's 1", "face's 1; happy", "face's 1; sun shine", "face's 1; happy, sun shine"}
    assert {EmojiNoto(16, {"draw": 1}, bare=1, where=tmp_path).document(1, RNG).parts[0].text for _ in range(20)} == {
        "face's 1"
    }
    described = EmojiNoto(16, {"describe": 1}, where=tmp_path).document(2, RNG)
    assert described.parts[1].text == "face's 2" and described.parts[0].pixels.shape == (16, 16, 3)


def test_boxes_of_pixels_are_averaged_to_the_nearest_value():
    pixels = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    exact = pixels.reshape(3, 4, 2, 4, 2, 3).astype(float).mean((2, 4))
    assert np.abs(averaged(pixels, 4) - exact).max() <= 0.5
    assert averaged(pixels, 8) is pixels
    with pytest.raises(ValueError, match=r"cannot be averaged to 3 px: use one of \[1, 2, 4, 8\]"):
        averaged(pixels, 3)


def test_alpha_is_laid_over_a_colour_to_the_nearest_value():
    pixels = RNG.integers(0, 256, (5, 4, 4, 4), dtype=np.uint8)
    alpha = pixels[..., 3:] / 255
    exact = pixels[..., :3] * alpha + np.array([10, 200, 90]) * (1 - alpha)
    assert np.abs(over(pixels, (10, 200, 90)) - exact).max() <= 0.5 + 1e-9


def test_quotation_marks_become_those_of_a_keyboard():
    assert plain("two o’clock “here” piñata") == 'two o\'clock "here" piñata'


@have("emoji-noto")
def test_the_emoji_are_all_there_and_no_base_emoji_is_on_both_sides():
    train, valid = named("emoji-noto", skin_tones=True), named("emoji-noto", split="valid", skin_tones=True)
    assert train.size + valid.size == 3831
    assert {record["base"] for record in train.records}.isdisjoint(record["base"] for record in valid.records)
    plain_train, plain_valid = named("emoji-noto"), named("emoji-noto", 64, split="valid")
    assert (plain_train.size, plain_valid.size) == (1842, 99)
    assert plain_valid.pair(0)[0].shape == (64, 64, 3) and plain_train.pair(0)[0].shape == (32, 32, 3)
    assert plain_valid.pair(plain_valid.names().index("sunflower"))[0][0, 0].tolist() == [255, 255, 255]
    longest = max(len(plain_train.prompt(index, name, RNG)) for index, name in enumerate(plain_train.names()))
    assert longest < 200


@have("tiles-crawl")
def test_the_tiles_are_all_there_and_can_be_seen_over_their_background():
    train, valid = named("tiles-crawl"), named("tiles-crawl", split="valid")
    assert (train.size, valid.size) == (3635, 193) and set(train.names()).isdisjoint(valid.names())
    contrast = train.pixels.reshape(train.size, -1).astype(int)
    assert ((contrast.max(1) - contrast.min(1)) > 16).mean() > 0.99
    assert TilesCrawl(16, groups=["monster"]).pair(0)[0].shape == (16, 16, 3)
    assert train.words(0) == ["dungeon"]
