import numpy as np
import torch
from scipy.stats import kstest

from pipeline.data.augmentation.noise import normals, philox4x32


def words(counter, key):
    return [int(word) for word in philox4x32(tuple(torch.tensor([c]) for c in counter), key)]


def test_philox_gives_the_known_answers():
    """The vectors that the authors publish with Random123 for philox4x32, 10 rounds."""
    assert words((0,) * 4, (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert words((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_the_noise_is_standard_normal_and_its_channels_are_independent():
    noise = normals(torch.arange(100_000), torch.full((100_000,), 12345), (7, 8)).numpy()
    assert noise.dtype == np.float32
    for channel in noise.T:
        assert kstest(channel, "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.01
    assert np.abs(np.corrcoef(noise[:-1].T, noise[1:].T)[:3, 3:]).max() < 0.01


def test_a_pixels_noise_depends_on_its_index_its_view_and_the_key_alone():
    pixel, position = torch.tensor([5, 9, 5, 9]), torch.tensor([1, 1, 2**33 + 1, 1])
    noise = normals(pixel, position, (7, 8))
    assert torch.equal(noise[1], noise[3])
    assert not torch.equal(noise[0], noise[2])
    assert torch.equal(noise[[2]], normals(pixel[[2]], position[[2]], (7, 8)))
    assert not torch.equal(noise, normals(pixel, position, (7, 9)))
