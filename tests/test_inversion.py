"""Pictures to noise and back along the flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from test_designs import made

from mixmodal.generate import Request, generate
from mixmodal.inversion import from_noise, to_noise
from mixmodal.parts import Document, Image, Text
from mixmodal.sampling import Settings


def smooth(flow: dict | None = None):
    """A model whose prediction hardly depends on its input, so that the path is gentle."""
    model = small_model(flow={"prediction": "v", **(flow or {})})
    with torch.no_grad():
        model.streams["patches"].codec.out.mul_(0.05)
    return model


def documents() -> list[Document]:
    return [Document((Text("a red circle"), picture(n)), key=n) for n in range(2)]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("time", ["add", "token"])
def test_noise_leads_back_to_its_picture_and_more_steps_lead_nearer(solver, time):
    model, errors = smooth({"time": time}), []
    true = [model.streams["patches"].codec.encode(d.parts[-1]).values for d in documents()]
    for steps in (2, 16):
        noise = to_noise(model, documents(), steps, solver)
        assert not np.allclose(noise[0], true[0], atol=1e-2) and noise[0].shape == true[0].shape
        back = from_noise(model, documents(), noise, steps, solver)
        gap = [a.parts[-1].pixels.astype(int) - b.parts[-1].pixels for a, b in zip(documents(), back, strict=True)]
        errors.append(np.abs(gap).max())
    assert errors[1] <= 1 and errors[1] <= errors[0]


def test_from_noise_is_where_sampling_without_guidance_ends():
    """What stands before the part is the same on both ways: a model that looks at it ends elsewhere otherwise."""
    model = small_model(flow={"prediction": "v"})
    request = Request(Document((Text("a"), Image(size=(8, 8))), key=3), Settings(steps=4, guidance=1.0, shift=1.0), 5)
    drawn = generate(model, [request])[0].parts[-1].pixels
    rng = torch.Generator().manual_seed(5 * 1_000_003 + 3)
    noise = torch.randn(4, 48, generator=rng).numpy()
    asked = Document((Text("a"), picture(0)), key=3)
    found = from_noise(model, [asked], [noise], 4, "euler")[0].parts[-1].pixels
    assert np.abs(found.astype(int) - drawn).max() <= 1


def test_documents_together_go_where_each_goes_alone():
    model = smooth()
    together = to_noise(model, documents(), 3)
    for document, noise in zip(documents(), together, strict=True):
        assert np.allclose(to_noise(model, [document], 3)[0], noise, atol=1e-5)
    unlike = [documents()[0], Document((picture(4),), key=4)]
    assert np.allclose(to_noise(model, unlike, 3)[0], together[0], atol=1e-5)


def test_latents_have_a_path_and_codes_have_none():
    assert to_noise(made("transfusion"), documents(), 2)[0].shape == (4, 16)
    with pytest.raises(ValueError, match="no velocity to follow"):
        to_noise(made("showo"), documents(), 2)


def all_knowing(monkeypatch):
    """A model that predicts the one picture there is, whatever it is shown."""
    model = small_model()
    codec, document = model.streams["patches"].codec, documents()[0]
    values = torch.from_numpy(codec.encode(document.parts[-1]).values)
    monkeypatch.setattr(codec, "read", lambda hidden, fields: values)
    return model, document, values


@pytest.mark.parametrize("start", [0.9, 0.99])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_from_before_its_end_the_way_leads_to_the_noise_that_was_there_and_back(solver, start, monkeypatch):
    model, document, values = all_knowing(monkeypatch)
    (noise,) = to_noise(model, [document], 7, solver, start=start, rng=torch.Generator().manual_seed(3))
    assert np.allclose(noise, torch.randn(values.shape, generator=torch.Generator().manual_seed(3)), atol=1e-3)
    (back,) = from_noise(model, [document], [noise], 7, solver, start=start)
    assert np.array_equal(back.parts[-1].pixels, document.parts[-1].pixels)
    assert np.allclose(to_noise(model, [document], 7, solver)[0], values, atol=1e-5), "a picture holds no noise"


def test_a_way_without_bounds_is_refused_with_what_to_do(monkeypatch):
    model, document, _ = all_knowing(monkeypatch)
    monkeypatch.setattr(model.streams["patches"].codec, "read", lambda hidden, fields: -1e4 * fields["values"])
    with pytest.raises(ValueError, match=r"has no bounds in this model: .* start=0.9"):
        to_noise(model, [document], 3)
    with pytest.raises(ValueError, match="take a smaller start"):
        to_noise(model, [document], 3, start=0.9, rng=torch.Generator())
    with pytest.raises(ValueError, match="together with a generator as rng"):
        to_noise(model, [document], 3, start=0.9)


def test_a_way_that_leads_nowhere_is_refused():
    model, document = smooth(), Document((picture(1),))
    for documents, steps, start in (([], 2, 1.0), ([document], 0, 1.0), ([document], 2, 1.5)):
        with pytest.raises(ValueError, match="at least one of both"):
            from_noise(model, documents, [np.zeros((4, 48))] * len(documents), steps, start=start)
    with pytest.raises(ValueError, match="did you mean heun"):
        to_noise(model, [document], 2, "hoin")


def test_a_picture_that_is_given_goes_the_same_way_as_one_that_is_wanted():
    model = smooth()
    before = (Text("a"), picture(1), Text("b"))
    wanted, shown = (Document((*before, replace(picture(2), wanted=w)), key=1) for w in (True, False))
    assert np.array_equal(to_noise(model, [wanted], 2)[0], to_noise(model, [shown], 2)[0])
