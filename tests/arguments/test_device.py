"""Which device the work runs on, and work in chunks that fit its memory."""

import itertools

import pytest
import torch

from smpcore import device

CUDA = torch.cuda.is_available()


@pytest.mark.parametrize(("name", "found"), [
    ("cpu", torch.device("cpu")),
    (torch.device("cpu"), torch.device("cpu")),
    ("auto", torch.device("cuda", 0) if CUDA else torch.device("cpu")),
])
def test_names_stand_for_devices(name, found):
    assert device.resolve(name) == found


@pytest.mark.parametrize("wrong", [0, None, ["cpu"]])
def test_what_is_not_a_name_is_refused(wrong):
    with pytest.raises(TypeError, match=r"device = .*: it must be a name such as 'auto', 'cpu' or 'cuda:1'"):
        device.resolve(wrong)


@pytest.mark.parametrize("wrong", ["gpu", "", "cuda:one"])
def test_an_unknown_name_is_refused(wrong):
    with pytest.raises(ValueError, match=f"device '{wrong}' is not known: name 'auto', 'cpu', 'cuda'"):
        device.resolve(wrong)


@pytest.mark.parametrize(("there", "count", "name", "sees"), [
    (False, 0, "cuda", "no GPUs"), (False, 0, "cuda:1", "no GPUs"), (True, 1, "cuda:1", "1 GPU "),
    (True, 4, "cuda:4", "4 GPUs"),
])
def test_a_gpu_that_is_not_there_is_refused(there, count, name, sees, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ValueError, match=f"'{name}' was named, but torch sees {sees}.*use 'auto' or 'cpu'"):
        device.resolve(name)


def test_one_gpu_of_several_is_found_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device.resolve("cuda:3") == torch.device("cuda", 3)
    assert device.resolve("cuda") == device.resolve("auto") == torch.device("cuda", 0)


def test_mps_has_no_float64():
    with pytest.raises(ValueError, match=r"'mps' has no float64.*use 'cpu', or ask for dtype=torch\.float32"):
        device.resolve("mps")
    assert device.resolve("mps", torch.float32).type == "mps"


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match="'meta' is not supported: name 'auto', 'cpu', 'cuda' or 'cuda:1'"):
        device.resolve("meta")


def test_a_device_in_words(monkeypatch):
    assert device.describe(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda found: "Some GPU")
    assert device.describe(torch.device("cuda", 1)) == "cuda:1 (Some GPU)"


@pytest.mark.parametrize(("count", "size", "overlap", "pieces"), [
    (10, 4, 0, [(0, 4), (4, 8), (8, 10)]),
    (10, 4, 1, [(0, 4), (3, 7), (6, 10)]),
    (3, 100, 1, [(0, 3)]),
    (1, 4, 1, [(0, 1)]),
    (0, 4, 0, []),
    (0, 4, 1, []),
    (5, 1, 1, [(0, 2), (1, 3), (2, 4), (3, 5)]),  # one sample has no interval: 1 + overlap is the least
])
def test_pieces_cover_everything(count, size, overlap, pieces):
    assert list(device.chunks(lambda *ends: ends, count, size, overlap=overlap)) == pieces


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                 RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
                 RuntimeError("DefaultCPUAllocator: can't allocate memory")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {error}"[:40])
@pytest.mark.parametrize("overlap", [0, 1])
def test_out_of_memory_halves_the_piece_and_goes_on(error, overlap):
    tried = []

    def work(start, stop):
        tried.append(stop - start)
        if stop - start > 5:
            raise error
        return start, stop

    pieces = list(device.chunks(work, 23, 16, overlap=overlap))
    assert tried[:3] == [16, 8, 4]
    assert pieces[0][0] == 0
    assert pieces[-1][1] == 23
    assert all(after[0] == before[1] - overlap for before, after in itertools.pairwise(pieces))


@pytest.mark.parametrize(("overlap", "least"), [(0, "1 sample at once"), (1, "2 samples at once")])
def test_not_even_the_smallest_piece_fits(overlap, least):
    def work(start, stop):
        raise MemoryError

    with pytest.raises(MemoryError, match=f"out of memory on {least}: use a device with more memory"):
        list(device.chunks(work, 8, 8, overlap=overlap))


def test_other_errors_are_not_swallowed():
    def work(start, stop):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(device.chunks(work, 8, 8))
